"""gRPC's own client and server, without generated code: `serve FILE` tells its port in FILE, `call ADDRESS` makes calls, and
`keep ADDRESS NUMBER` goes on making calls over so many connections, and prints for each round who answered."""

import os
import sys
import threading
import time
from concurrent import futures

import grpc

LARGE = 3 << 20


def echo(request, context):
    for name, value in context.invocation_metadata():
        if name.startswith("x-echo"):
            context.send_initial_metadata([(name, value)])
    context.set_trailing_metadata([("x-end-bin", b"\x00\x01\xff")])
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: 100% ä")


# `google.rpc.Status` with a code, a message and one detail, as bytes: gRPC carries it and does not look into it.
DETAILS = b"\x08\x08\x12\x04full\x1a\x0b\n\x09type/name\xff"


def fail_in_detail(request, context):
    context.set_trailing_metadata([("grpc-status-details-bin", DETAILS), ("x-end-bin", bytes(range(256)))])
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")


def stall(request, context):
    left = threading.Event()
    context.add_callback(left.set)
    left.wait(30)
    return b""


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def count_and_fail(request, context):
    yield b"0"
    context.abort(grpc.StatusCode.DATA_LOSS, "after one")


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield request


cancelled = threading.Event()


def endless(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        yield b"tick"
        time.sleep(0.005)


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(20) else b"no"


UNARY = {"Echo": echo, "Fail": fail, "FailInDetail": fail_in_detail, "Stall": stall, "WasCancelled": was_cancelled}
SERVER_STREAMING = {"Count": count, "CountAndFail": count_and_fail, "Endless": endless}
OPTIONS = [("grpc.max_receive_message_length", 2 * LARGE), ("grpc.max_send_message_length", 2 * LARGE)]


def serve(file):
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in UNARY.items()}
    handlers |= {name: grpc.unary_stream_rpc_method_handler(method) for name, method in SERVER_STREAMING.items()}
    handlers["Total"] = grpc.stream_unary_rpc_method_handler(total)
    handlers["Chat"] = grpc.stream_stream_rpc_method_handler(chat)
    server = grpc.server(futures.ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("peer.Peer", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open(file + ".new", "w", encoding="ascii") as out:
        out.write(str(port))
    os.rename(file + ".new", file)
    server.wait_for_termination()


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it should have failed")


def call(address):
    channel = grpc.insecure_channel(address, options=OPTIONS)
    unary = lambda name: channel.unary_unary(f"/peer.Peer/{name}")

    # Unary, with metadata both ways.
    answer, done = unary("Echo").with_call(b"hello", metadata=[("x-echo", "1")], timeout=20)
    assert answer == b"hello", answer
    assert ("x-echo", "1") in done.initial_metadata(), done.initial_metadata()
    assert ("x-end-bin", b"\x00\x01\xff") in done.trailing_metadata(), done.trailing_metadata()
    assert unary("Echo")(b"", timeout=20) == b""
    for compression in [grpc.Compression.Gzip, grpc.Compression.Deflate]:
        assert unary("Echo")(b"a" * 10_000, timeout=20, compression=compression) == b"a" * 10_000
    large = os.urandom(LARGE)
    assert unary("Echo")(large, timeout=60) == large, "a message larger than any window"

    # Many at once on one connection.
    pending = [unary("Echo").future(str(number).encode(), timeout=60) for number in range(500)]
    assert [int(one.result()) for one in pending] == list(range(500))

    # Streams of every kind.
    counted = list(channel.unary_stream("/peer.Peer/Count")(b"2000", timeout=60))
    assert counted == [str(number).encode() for number in range(2000)], len(counted)
    summed = channel.stream_unary("/peer.Peer/Total")((b"x" * number for number in range(1000)), timeout=60)
    assert int(summed) == sum(range(1000)), summed
    talk = channel.stream_stream("/peer.Peer/Chat")
    assert list(talk(iter([b"a", b"", b"b" * 100_000]), timeout=60)) == [b"a", b"", b"b" * 100_000]
    turn, said = threading.Semaphore(1), []

    def one_by_one():
        for number in range(20):
            turn.acquire()
            yield str(number).encode()

    for answer in talk(one_by_one(), timeout=60):
        said.append(int(answer))
        turn.release()
    assert said == list(range(20)), said

    # Failures: without a message (trailers only), behind one, of a method that is not there.
    code, details = status_of(lambda: unary("Fail")(b"", timeout=20))
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "not so: 100% ä"), (code, details)
    try:
        unary("FailInDetail")(b"", timeout=20)
        raise AssertionError("it should have failed")
    except grpc.RpcError as error:
        trailing = dict(error.trailing_metadata())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert trailing["grpc-status-details-bin"] == DETAILS, trailing
        assert trailing["x-end-bin"] == bytes(range(256)), trailing
    code, details = status_of(lambda: list(channel.unary_stream("/peer.Peer/CountAndFail")(b"", timeout=20)))
    assert (code, details) == (grpc.StatusCode.DATA_LOSS, "after one"), (code, details)
    code, _ = status_of(lambda: unary("Missing")(b"", timeout=20))
    assert code == grpc.StatusCode.UNIMPLEMENTED, code

    # A deadline, and a client that takes its call back.
    code, _ = status_of(lambda: unary("Stall")(b"", timeout=0.2))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED, code
    ticks = channel.unary_stream("/peer.Peer/Endless")(b"")
    assert next(ticks) == b"tick"
    ticks.cancel()
    assert unary("WasCancelled")(b"", timeout=30) == b"yes", "the server does not know"
    print("all calls are as they should be")


def keep(address, number):
    # Each with connections of its own.
    options = OPTIONS + [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(address, options=options) for _ in range(int(number))]

    def answered_by(channel):
        try:
            _, done = channel.unary_unary("/peer.Peer/Echo").with_call(b"", timeout=20)
        except grpc.RpcError as error:
            return f"failed({error.code().name}:{error.details()})"
        return dict(done.initial_metadata()).get("server", "nobody")

    while True:
        print(*map(answered_by, channels), flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    {"serve": serve, "call": call, "keep": keep}[sys.argv[1]](*sys.argv[2:])

"""Both ends of calls by gRPC's own implementation.

    grpc_peer.py serve NAME ADDRESS [CHAIN KEY ROOTS]: a server that answers each call with its name, at any port; prints the port
    grpc_peer.py call TARGET: reads one call a line (method, count, metadata) and prints who answered how often
"""

import collections
import json
import sys
from concurrent import futures

import grpc
import grpc.experimental


class Named(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name.encode()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.name)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def serve(name, address, tls):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Named(name)])
    if tls:
        chain, key, roots = map(read, tls)
        credentials = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=True)
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print(port, flush=True)
    sys.stdin.read()


def call(target):
    credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
    channel = grpc.secure_channel(target, credentials)
    for line in sys.stdin:
        wanted = json.loads(line)
        method = channel.unary_unary(wanted["method"])
        seen = collections.Counter()
        for _ in range(wanted["count"]):
            try:
                seen[method(b"", timeout=10, metadata=wanted["metadata"]).decode()] += 1
            except grpc.RpcError as error:
                seen[error.code().name + ": " + error.details()] += 1
        print(json.dumps(seen), flush=True)


if sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3], sys.argv[4:])
else:
    call(sys.argv[2])

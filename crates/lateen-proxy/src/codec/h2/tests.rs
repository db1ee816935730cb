//! Connections without sockets: frames in, frames out.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lateen_engine::config::cluster::Http2Options;
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Scheme, Version};

use super::connection::{Connection, Phase};
use super::frame::{HEAD, Head, Reason, flag, kind, setting};
use super::{Accepted, Ended, Opener, PREFACE, Role, Settings};
use crate::http::body::Frame;

const BYTES: usize = 60 << 10;

struct End(Rc<Connection>);

impl End {
    fn new(role: Role, options: &Http2Options) -> Self {
        Self(Rc::new(Connection::new(role, Settings::new(options, BYTES, 100), Instant::now())))
    }

    /// A server whose client has said hello.
    fn server() -> Self {
        let server = Self::new(Role::Server(Scheme::Http), &Http2Options::default());
        server.feed(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
        server.frames();
        server
    }

    fn feed(&self, bytes: &[u8]) {
        self.0.state().receive(&mut BytesMut::from(bytes));
    }

    /// What it has written since.
    fn frames(&self) -> Vec<(Head, Vec<u8>)> {
        let out = self.0.state().out.take();
        let (mut rest, mut frames) = (out.strip_prefix(PREFACE).unwrap_or(&out), Vec::new());
        while let Some(head) = Head::read(rest) {
            frames.push((head, rest[HEAD..HEAD + head.length].to_vec()));
            rest = &rest[HEAD + head.length..];
        }
        frames
    }

    fn accept(&self) -> Option<Accepted> {
        Accepted::next(&self.0)
    }

    /// The error of the GOAWAY that it has written.
    fn failure(&self) -> Option<Reason> {
        let frames = self.frames();
        let (_, payload) = frames.iter().find(|(head, _)| head.kind == kind::GOAWAY)?;
        Some(Reason(u32::from_be_bytes(payload[4..].try_into().expect("four bytes"))))
    }

    fn resets(&self) -> Vec<(u32, u32)> {
        let resets = self.frames().into_iter().filter(|(head, _)| head.kind == kind::RST_STREAM);
        resets.map(|(head, payload)| (head.stream, u32::from_be_bytes(payload.try_into().expect("four")))).collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The same block each time: it leaves no trace in tables.
fn block(more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'h'];
    for (name, value) in more {
        for text in [name, value] {
            if text == name {
                block.push(0);
            }
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block(&[]))
}

fn post(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block(&[]))
}

fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, bytes)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &Reason::CANCEL.0.to_be_bytes())
}

fn poll<T>(poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
    poll(&mut Context::from_waker(Waker::noop()))
}

fn ok() -> ResponseHead {
    ResponseHead { status: StatusCode::OK, headers: Headers::default(), version: Version::Http2 }
}

#[test]
fn floods_end_the_connection() {
    let frames: [(&str, Vec<u8>); 7] = [
        ("pings", frame(kind::PING, 0, 0, &[0; 8])),
        ("settings", frame(kind::SETTINGS, 0, 0, &[])),
        ("priorities", frame(kind::PRIORITY, 0, 9, &[0; 5])),
        ("an unknown type", frame(0xee, 0, 0, &[])),
        ("windows", frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("empty data", data(1, b"", false)),
        ("data on a closed stream", data(3, b"", false)),
    ];
    for (what, frame) in frames {
        let server = End::server();
        server.feed(&[post(1), get(3)].concat());
        let held = (server.accept(), drop(server.accept()));
        let mut fed = 0;
        while server.0.state().phase < Phase::Failed {
            fed += 1;
            assert!(fed < 3_000, "{what}");
            server.feed(&frame);
        }
        assert!(fed > 50, "{what}: {fed} are no flood");
        assert_eq!(server.failure(), Some(Reason::ENHANCE_YOUR_CALM), "{what}");
        drop(held);
    }
}

#[test]
fn rapid_resets_end_the_connection() {
    for answered in [false, true] {
        let server = End::server();
        let mut stream = 1;
        while server.0.state().phase < Phase::Failed {
            assert!(stream < 4_000, "{answered}");
            if answered {
                server.feed(&get(stream));
                let mut accepted = server.accept().expect("it came");
                accepted.answer.send_head(&ok(), false).expect("it is open");
                server.feed(&reset(stream));
            } else {
                server.feed(&[get(stream), reset(stream)].concat());
                assert!(server.accept().is_none(), "nobody is bothered with it");
            }
            stream += 2;
        }
        assert_eq!(server.failure(), Some(Reason::ENHANCE_YOUR_CALM));
        assert!(server.0.state().streams.is_empty(), "nothing is left of them");
    }
}

/// CONTINUATION frames without an end, growing or empty.
#[test]
fn endless_headers_end_the_connection() {
    for part in [vec![], vec![0; 16_000]] {
        let server = End::server();
        server.feed(&frame(kind::HEADERS, 0, 1, &block(&[])));
        let mut fed = 0;
        while server.0.state().phase < Phase::Failed {
            fed += 1;
            assert!(fed <= 65);
            server.feed(&frame(kind::CONTINUATION, 0, 1, &part));
        }
        assert_eq!(server.failure(), Some(Reason::ENHANCE_YOUR_CALM));
    }
}

/// One byte on the wire, four thousand in memory.
#[test]
fn small_blocks_that_unpack_to_large_lists_are_refused() {
    let large = "x".repeat(120);
    let server = End::server();
    let mut bomb = block(&[]);
    bomb.extend_from_slice(&[0x40, 1, b'a', 120]);
    bomb.extend_from_slice(large.as_bytes());
    bomb.extend(std::iter::repeat_n(0xbe, 10_000));
    server.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &bomb));
    assert!(server.accept().is_none());
    let frames = server.frames();
    assert_eq!((frames.len(), frames[0].0.kind), (1, kind::HEADERS), "431, and the connection goes on");
    server.feed(&get(3));
    assert!(server.accept().is_some());
}

#[test]
fn more_streams_than_are_allowed_are_refused() {
    let options = Http2Options { max_concurrent_streams: 2, ..Http2Options::default() };
    let server = End::new(Role::Server(Scheme::Http), &options);
    server.feed(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &get(1), &get(3), &get(5)].concat());
    assert_eq!(server.resets(), [(5, Reason::REFUSED_STREAM.0)]);
    let mut first = server.accept().expect("it came");
    first.answer.send_head(&ok(), true).expect("it is open");
    server.feed(&get(7));
    assert_eq!(server.resets(), [], "there is room again");
}

#[test]
fn data_waits_for_windows_and_goes_out_in_order() {
    let server = End::server();
    server.feed(&[settings(setting::INITIAL_WINDOW_SIZE, 10), get(1)].concat());
    let mut accepted = server.accept().expect("it came");
    accepted.answer.send_head(&ok(), false).expect("it is open");
    server.frames();
    let mut body = Bytes::from_static(b"0123456789abcdef");
    assert!(poll(|cx| accepted.answer.poll_data(&mut body, true, cx)).is_pending());
    assert_eq!(body, "abcdef");
    // A smaller window, below nothing; then two larger ones.
    server.feed(&settings(setting::INITIAL_WINDOW_SIZE, 0));
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 10]));
    assert!(poll(|cx| accepted.answer.poll_data(&mut body, true, cx)).is_pending());
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 6]));
    assert_eq!(poll(|cx| accepted.answer.poll_data(&mut body, true, cx)), Poll::Ready(Ok(())));
    let sent: Vec<_> = server.frames().into_iter().filter(|(head, _)| head.kind == kind::DATA).collect();
    assert_eq!(sent.iter().map(|(head, _)| head.flags).collect::<Vec<_>>(), [0, flag::END_STREAM]);
    assert_eq!(sent.iter().flat_map(|(_, data)| data.clone()).collect::<Vec<_>>(), b"0123456789abcdef");
}

#[test]
fn windows_that_open_too_far_are_errors() {
    let server = End::server();
    server.feed(&[post(1), frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])].concat());
    assert_eq!(server.resets(), [(1, Reason::FLOW_CONTROL_ERROR.0)]);
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]));
    assert_eq!(server.failure(), Some(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn data_beyond_the_window_is_not_kept() {
    let options =
        Http2Options { initial_stream_window: 65_535, initial_connection_window: 65_535, ..Http2Options::default() };
    let server = End::new(Role::Server(Scheme::Http), &options);
    server.feed(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &post(1)].concat());
    let mut accepted = server.accept().expect("it came");
    for _ in 0..3 {
        server.feed(&data(1, &[0; 16_384], false));
    }
    assert!(server.failure().is_none(), "that much it may");
    // What is taken may be sent again.
    let body = accepted.body.as_mut().expect("there is one");
    for _ in 0..3 {
        let frame = poll(|cx| body.poll_frame(cx));
        assert!(matches!(frame, Poll::Ready(Some(Ok(Frame::Data(data)))) if data.len() == 16_384));
    }
    let updates = server.frames().into_iter().filter(|(head, _)| head.kind == kind::WINDOW_UPDATE).count();
    assert_eq!(updates, 2, "one for the stream, one for the connection");
    for _ in 0..5 {
        server.feed(&data(1, &[0; 16_384], false));
    }
    assert_eq!(server.failure(), Some(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn a_body_that_differs_from_its_length_is_malformed() {
    for (length, pieces) in [("3", vec![data(1, b"four", true)]), ("5", vec![data(1, b"four", true)])] {
        let server = End::server();
        let head = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&[("content-length", length)]));
        server.feed(&[head, pieces.concat()].concat());
        assert_eq!(server.resets(), [(1, Reason::PROTOCOL_ERROR.0)], "{length}");
    }
}

#[test]
fn heads_that_could_be_taken_differently_are_malformed() {
    let fields: [&[(&str, &str)]; 14] = [
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("te", "gzip")],
        &[("X-Upper", "1")],
        &[("x a", "1")],
        &[("x", "a\r\nb: c")],
        &[("host", "other")],
        &[("content-length", "1"), ("content-length", "1")],
        &[("content-length", "+1")],
        &[("x", "1"), (":path", "/late")],
        &[(":path", "/twice")],
    ];
    for fields in fields {
        let server = End::server();
        server.feed(&frame(kind::HEADERS, flag::END_HEADERS, 1, &block(fields)));
        assert_eq!(server.resets(), [(1, Reason::PROTOCOL_ERROR.0)], "{fields:?}");
        assert!(server.accept().is_none());
    }
}

#[test]
fn a_stream_that_nobody_holds_is_reset() {
    let server = End::server();
    server.feed(&[post(1), post(3)].concat());
    drop(server.accept());
    let mut second = server.accept().expect("it came");
    second.answer.send_head(&ok(), true).expect("it is open");
    drop(second);
    assert_eq!(server.resets(), [(1, Reason::CANCEL.0), (3, Reason::NO_ERROR.0)]);
    // What was under way meanwhile is no error.
    server.feed(&[data(1, b"late", false), data(3, b"late", true)].concat());
    assert_eq!(server.failure(), None);
}

fn client(options: &Http2Options) -> (End, Opener) {
    let client = End::new(Role::Client, options);
    client.feed(&frame(kind::SETTINGS, 0, 0, &[]));
    client.frames();
    let opener = Opener(Rc::clone(&client.0));
    (client, opener)
}

fn head(method: Method) -> RequestHead {
    RequestHead {
        method,
        scheme: Scheme::Http,
        authority: "h".into(),
        path: "/".into(),
        headers: Headers::default(),
        version: Version::Http2,
    }
}

#[test]
fn go_away_tells_what_was_not_processed() {
    let (client, opener) = client(&Http2Options::default());
    let [mut first, mut second] = [(); 2].map(|()| opener.open(&head(Method::GET), true).expect("there is room").0);
    client.feed(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
    assert!(!opener.is_open());
    let unprocessed = poll(|cx| second.poll_response(cx, drop));
    assert_eq!(unprocessed, Poll::Ready(Err(Ended::Unprocessed)));
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x88]));
    assert!(matches!(poll(|cx| first.poll_response(cx, drop)), Poll::Ready(Ok(head)) if head.status == 200));
}

#[test]
fn answers_to_head_tell_a_length_without_data() {
    let (client, opener) = client(&Http2Options::default());
    let (mut answer, _) = opener.open(&head(Method::HEAD), true).expect("there is room");
    let block = [&[0x88, 0x0f, 0x0d, 1][..], b"5"].concat();
    client.feed(&[frame(kind::HEADERS, flag::END_HEADERS, 1, &block), data(1, b"", true)].concat());
    assert!(matches!(poll(|cx| answer.poll_response(cx, drop)), Poll::Ready(Ok(_))));
    assert!(answer.is_end() && client.resets().is_empty());
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let (client, opener) = client(&Http2Options::default());
    let (mut answer, _) = opener.open(&head(Method::GET), true).expect("there is room");
    let interim = [&[0x08, 3][..], b"103"].concat();
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, 1, &interim).repeat(100));
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x88]));
    let mut seen = 0;
    let head = poll(|cx| answer.poll_response(cx, |_| seen += 1));
    assert!(matches!(head, Poll::Ready(Ok(head)) if head.status == 200) && seen == 16);
}

#[test]
fn heads_larger_than_a_frame_go_out_in_several() {
    let (client, opener) = client(&Http2Options::default());
    let mut large = head(Method::GET);
    for number in 0..60 {
        let name = HeaderName::try_from(format!("x-{number}")).expect("it is a name");
        large.headers.append(name, HeaderValue::try_from("v".repeat(700)).expect("it is a value"));
    }
    let _held = opener.open(&large, true).expect("there is room");
    let frames = client.frames();
    let kinds: Vec<u8> = frames.iter().map(|(head, _)| head.kind).collect();
    assert_eq!(kinds, [kind::HEADERS, kind::CONTINUATION, kind::CONTINUATION]);
    let server = End::server();
    frames.iter().for_each(|(head, payload)| server.feed(&frame(head.kind, head.flags, head.stream, payload)));
    assert_eq!(server.accept().expect("it came").head.headers, large.headers);
}

#[test]
fn a_queue_that_is_not_written_takes_no_more_data() {
    let server = End::server();
    server.feed(&settings(setting::INITIAL_WINDOW_SIZE, 1 << 30));
    server.feed(&[frame(kind::WINDOW_UPDATE, 0, 0, &[0x3f, 0xff, 0, 0]), get(1)].concat());
    let mut accepted = server.accept().expect("it came");
    accepted.answer.send_head(&ok(), false).expect("it is open");
    let mut body = Bytes::from(vec![0; 10 << 20]);
    assert!(poll(|cx| accepted.answer.poll_data(&mut body, true, cx)).is_pending());
    assert!(server.0.state().out.len() < 100 << 10);
}

/// Go's server and client open both windows with every four KiB.
#[test]
fn windows_that_open_in_small_steps_are_no_flood() {
    let server = End::server();
    server.feed(&get(1));
    let mut accepted = server.accept().expect("it came");
    accepted.answer.send_head(&ok(), false).expect("it is open");
    for _ in 0..5_000 {
        let mut piece = Bytes::from_static(&[0; 16_384]);
        assert_eq!(poll(|cx| accepted.answer.poll_data(&mut piece, false, cx)), Poll::Ready(Ok(())));
        server.frames();
        let steps = [0, 1].map(|stream| frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 16, 0]).repeat(4));
        server.feed(&steps.concat());
    }
    assert_eq!(server.failure(), None);
}

/// A stream of numbers below a bound, the same for each seed.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from((state >> 11) % below as u64).expect("it is small")
    }
}

/// A frame that may be right, or nearly.
fn any_frame(number: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let kind = [0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10][number(17)];
    let flags = [0, 1, 4, 5, 5, 4, 8, 0x2d][number(8)];
    let stream = [0, 1, 1, 3, 3, 5, 7, 2, 101][number(9)];
    let payload = match (kind, number(8)) {
        (_, 0) => (0..number(40)).map(|_| number(256) as u8).collect(),
        (kind::HEADERS | kind::CONTINUATION, 1) => vec![0x88],
        (kind::HEADERS | kind::CONTINUATION, 2) => vec![0, 1, b'a', 1, b'b'],
        (kind::HEADERS | kind::CONTINUATION, 3) => block(&[("content-length", ["0", "5", "200"][number(3)])]),
        (kind::HEADERS | kind::CONTINUATION, _) => block(&[]),
        (kind::DATA, _) => vec![0; number(200)],
        (kind::PRIORITY, _) => vec![0; 5],
        (kind::RST_STREAM, _) => vec![0, 0, 0, number(12) as u8],
        (kind::SETTINGS, _) if flags & flag::ACK != 0 => vec![],
        (kind::SETTINGS, _) => vec![0, number(7) as u8, 0, number(2) as u8, 0, number(256) as u8],
        (kind::PING | kind::GOAWAY, _) => vec![0, 0, 0, number(6) as u8, 0, 0, 0, 0],
        _ => vec![0, 0, number(100) as u8, 1],
    };
    frame(kind, flags, stream, &payload)
}

/// Streams in whatever state, used and dropped in whatever order.
#[derive(Default)]
struct Held(Vec<(Option<super::RecvStream>, Option<super::SendStream>)>);

impl Held {
    fn use_one(&mut self, number: &mut impl FnMut(usize) -> usize) {
        if self.0.is_empty() {
            return;
        }
        let place = number(self.0.len());
        let (receive, send) = &mut self.0[place];
        match (number(8), receive, send) {
            (0, receive, _) => drop(receive.take()),
            (1, _, send) => drop(send.take()),
            (2, Some(receive), _) => drop(poll(|cx| receive.poll_frame(cx))),
            (3, Some(receive), _) => drop(poll(|cx| receive.poll_response(cx, drop))),
            (4, _, Some(send)) => {
                let _ = send.send_head(&ok(), number(2) == 0);
            }
            (5, _, Some(send)) => {
                let mut data = Bytes::from(vec![0; number(100_000)]);
                let _ = poll(|cx| send.poll_data(&mut data, number(2) == 0, cx));
            }
            (6, _, Some(send)) => {
                let _ = send.send_trailers(&Headers::default());
            }
            (7, _, Some(send)) => send.reset(Reason::CANCEL),
            _ => {}
        }
    }
}

#[test]
fn whatever_a_peer_sends_counts_stay_right() {
    for seed in 1..2_000 {
        let mut number = numbers(seed);
        let is_client = number(2) == 0;
        let end = if is_client { client(&Http2Options::default()).0 } else { End::server() };
        let opener = is_client.then(|| Opener(Rc::clone(&end.0)));
        let mut held = Held::default();
        for _ in 0..number(150) {
            match number(4) {
                0 => held.use_one(&mut number),
                1 => match &opener {
                    Some(opener) => {
                        let opened = opener.open(&head(Method::POST), number(2) == 0);
                        held.0.extend(opened.ok().map(|(receive, send)| (Some(receive), send)));
                    }
                    None => held.0.extend(end.accept().map(|accepted| (accepted.body, Some(accepted.answer)))),
                },
                _ => end.feed(&any_frame(&mut number)),
            }
            let state = end.0.state();
            let open = state.streams.values().filter(|stream| !stream.is_over()).count();
            assert_eq!(state.open, open, "seed {seed}");
        }
        while let Some(accepted) = end.accept() {
            drop(accepted);
        }
        drop(held);
        let state = end.0.state();
        assert_eq!((state.open, state.streams.len()), (0, 0), "seed {seed}");
    }
}

fn literal(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("it is short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(kind::HEADERS, flag::END_HEADERS, 1, &block)
}

/// RFC 8441: a stream becomes another protocol's connection, where the server says that it may.
#[test]
fn a_stream_becomes_another_protocols_connection_where_it_may() {
    let fields =
        [(":method", "CONNECT"), (":protocol", "WebSocket"), (":scheme", "http"), (":path", "/"), (":authority", "h")];
    for allowed in [true, false] {
        let options = Http2Options { allow_connect: allowed, ..Http2Options::default() };
        let server = End::new(Role::Server(Scheme::Http), &options);
        server.feed(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
        let told = |(head, payload): &(Head, Vec<u8>)| {
            head.kind == kind::SETTINGS && payload.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1])
        };
        assert_eq!(server.frames().iter().any(told), allowed);
        server.feed(&literal(&fields));
        match server.accept() {
            Some(accepted) => {
                let asked = (&accepted.head.method, accepted.head.target(), accepted.upgrade.as_deref());
                assert_eq!(asked, (&Method::GET, "/", Some("websocket")));
                assert!(allowed);
            }
            None => {
                assert!(!allowed);
                assert_eq!(server.resets(), [(1, Reason::PROTOCOL_ERROR.0)]);
            }
        }
    }
    // A protocol of another method is none.
    let options = Http2Options { allow_connect: true, ..Http2Options::default() };
    let server = End::new(Role::Server(Scheme::Http), &options);
    server.feed(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
    server.feed(&literal(&[(":method", "GET"), fields[1], fields[2], fields[3], fields[4]]));
    assert_eq!(server.resets(), [(1, Reason::PROTOCOL_ERROR.0)]);
}

#[test]
fn connect_has_a_host_and_nothing_else() {
    let server = End::server();
    server.feed(&literal(&[(":method", "CONNECT"), (":authority", "h:80")]));
    let accepted = server.accept().expect("it is whole");
    assert_eq!(
        (accepted.head.host(), accepted.head.target(), accepted.upgrade.as_deref()),
        ("h:80", "", Some("connect"))
    );
    for more in [(":path", "/"), (":scheme", "http")] {
        let server = End::server();
        server.feed(&literal(&[(":method", "CONNECT"), (":authority", "h:80"), more]));
        assert_eq!(server.resets(), [(1, Reason::PROTOCOL_ERROR.0)], "{more:?}");
    }
}

#[test]
fn what_a_server_says_of_protocols_is_yes_and_stays_so() {
    let said = |values: &[u32]| {
        let client = End::new(Role::Client, &Http2Options::default());
        let opener = Opener(Rc::clone(&client.0));
        values.iter().for_each(|value| client.feed(&settings(setting::ENABLE_CONNECT_PROTOCOL, *value)));
        (opener.refuses_protocols(), client.failure())
    };
    assert_eq!(said(&[]), (false, None), "nobody knows yet");
    assert_eq!((said(&[0]), said(&[1]), said(&[0, 1])), ((true, None), (false, None), (false, None)));
    for wrong in [&[2][..], &[1, 0]] {
        assert_eq!(said(wrong).1, Some(Reason::PROTOCOL_ERROR), "{wrong:?}");
    }
}

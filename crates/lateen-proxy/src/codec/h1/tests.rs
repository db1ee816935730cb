//! Tables of what is read, what is refused, and that how bytes arrive makes no difference.

use bytes::BytesMut;
use http::Method;
use lateen_engine::config::http::Underscores;
use lateen_engine::message::{Headers, Scheme};

use super::body::{Decoder, Piece};
use super::request::{Request, Rules};
use super::*;

const RULES: Rules = Rules {
    limits: Limits { bytes: 60 << 10, fields: 100 },
    http_10: false,
    custom_methods: false,
    underscores: Underscores::Allow,
    scheme: Scheme::Http,
};

fn parse(text: &str) -> Result<Option<Request>, Refusal> {
    request::parse(&mut BytesMut::from(text), &RULES)
}

fn whole(text: &str) -> Request {
    parse(text).expect("it is right").expect("it is whole")
}

#[test]
fn a_head_is_taken_and_the_rest_left() {
    let mut buffer =
        BytesMut::from("\r\nPOST /a?b HTTP/1.1\r\nHost: h:80\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabcGET");
    let request = request::parse(&mut buffer, &RULES).expect("right").expect("whole");
    assert_eq!((request.head.target(), request.head.host(), request.framing), ("/a?b", "h:80", Framing::Length(3)));
    assert_eq!(&buffer[..], b"abcGET");
    assert!(request.keep_alive && request.head.headers.contains(&HeaderName::from_static("x-a")));
}

#[test]
fn hop_by_hop_fields_stay_here() {
    let request = whole(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Hop, host\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nTE: gzip, trailers\r\n\r\n",
    );
    let left: Vec<_> = request.head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(left, [("te", b"trailers".as_slice())]);
    assert_eq!(request.head.host(), "h");
}

#[test]
fn targets_in_every_form() {
    let cases = [
        ("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", "h", "/x"),
        ("GET http://o.test/a?b HTTP/1.1\r\nHost: h\r\n\r\n", "o.test", "/a?b"),
        ("GET http://o.test HTTP/1.1\r\nHost: h\r\n\r\n", "o.test", "/"),
        ("GET http://o.test?q HTTP/1.1\r\nHost: h\r\n\r\n", "o.test", "/?q"),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "h", "*"),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", "h:443", ""),
    ];
    for (text, host, path) in cases {
        let request = whole(text);
        assert_eq!((request.head.host(), request.head.target()), (host, path), "{text}");
    }
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    let bad = [
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n",
    ];
    for text in bad {
        assert!(matches!(parse(text), Err(Refusal::Bad(_))), "{text:?}: {:?}", parse(text));
    }
    for coding in ["gzip", "chunked, chunked", "gzip, chunked", "chunked;q=1", "xchunked"] {
        let text = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert!(matches!(parse(&text), Err(Refusal::NotImplemented)), "{coding}");
    }
    assert!(matches!(parse("GET / HTTP/1.0\r\nHost: h\r\n\r\n"), Err(Refusal::Version)));
}

#[test]
fn heads_are_bounded() {
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert!(matches!(parse(&many), Err(Refusal::TooLarge)));
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\na: {}", "x".repeat(61 << 10));
    assert!(matches!(parse(&long), Err(Refusal::TooLarge)));
    assert!(parse("GET / HTTP/1.1\r\nHost: h\r\n").expect("right so far").is_none());
}

fn decode(framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, Option<Headers>), Refusal> {
    let (mut decoder, mut buffer, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
    let mut rest = text.chunks(step.max(1));
    loop {
        match decoder.next(&mut buffer, false)? {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::End(trailers) => return Ok((body, trailers)),
            Piece::More => match rest.next() {
                Some(more) => buffer.extend_from_slice(more),
                None => return decoder.next(&mut buffer, true).map(|_| (body, None)),
            },
        }
    }
}

#[test]
fn chunked_bodies_read_alike_however_they_arrive() {
    let text = b"5\r\nhello\r\n6;ext=\"x\"\r\n world\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\n";
    for step in 1..=text.len() {
        let (body, trailers) = decode(Framing::Chunked, text, step).expect("it is right");
        assert_eq!(body, b"hello world", "by {step}");
        let trailers = trailers.expect("there are some");
        assert_eq!(trailers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
    }
}

#[test]
fn broken_chunks_are_refused() {
    let bad: [&[u8]; 9] = [
        b"x\r\n",
        b"\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"-1\r\n",
        b"10000000000000000\r\n",
        b"5 5\r\nhello\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhel",
    ];
    for text in bad {
        assert!(decode(Framing::Chunked, text, 1000).is_err(), "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn lengths_end_where_they_say() {
    assert_eq!(decode(Framing::Length(3), b"abc", 2).expect("right").0, b"abc");
    assert!(decode(Framing::Length(4), b"abc", 2).is_err(), "the end came early");
}

#[test]
fn responses_without_bodies_have_none() {
    for (method, head) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ] {
        let response =
            response::parse(&mut BytesMut::from(head), &method, &RULES.limits).expect("right").expect("whole");
        assert_eq!(response.framing, Framing::None, "{head}");
        assert!(response.keep_alive);
    }
    let closing = response::parse(&mut BytesMut::from("HTTP/1.1 200 OK\r\n\r\n"), &Method::GET, &RULES.limits);
    let closing = closing.expect("right").expect("whole");
    assert!(closing.framing == Framing::Close && !closing.keep_alive);
}

//! HTTP/1.1: how bytes arrive makes no difference, and what is written on is read as what came.

use bytes::BytesMut;
use http::Method;
use lateen_engine::config::http::Underscores;
use lateen_engine::message::Scheme;

use super::Input;
use crate::codec::h1::body::{Decoder, Piece};
use crate::codec::h1::request::{self, Request, Rules};
use crate::codec::h1::{Framing, Limits, Refusal, encode, response};

const LIMITS: Limits = Limits { bytes: 8 << 10, fields: 50 };

/// The first byte chooses the rules.
pub fn request(data: &[u8]) {
    let mut input = Input(data);
    let chosen = input.byte();
    let rules = Rules {
        limits: LIMITS,
        http_10: chosen & 1 != 0,
        custom_methods: chosen & 2 != 0,
        underscores: [Underscores::Allow, Underscores::Reject, Underscores::Drop][usize::from(chosen >> 2) % 3],
        scheme: Scheme::Http,
    };
    let whole = request::parse(&mut BytesMut::from(input.0), &rules);
    let mut buffer = BytesMut::new();
    let mut pieces = Ok(None);
    for byte in input.0.iter().take(2 << 10) {
        buffer.extend_from_slice(&[*byte]);
        pieces = request::parse(&mut buffer, &rules);
        if !matches!(pieces, Ok(None)) {
            break;
        }
    }
    if let (Ok(Some(whole)), Ok(Some(pieces))) = (&whole, &pieces) {
        assert_same(whole, pieces);
    }
    let Ok(Some(read)) = whole else { return };
    if read.head.path.is_empty() {
        // CONNECT, which goes no further.
        return;
    }
    let mut written = BytesMut::new();
    encode::request(&mut written, &read.head, read.framing, None);
    let again = request::parse(&mut written, &Rules { custom_methods: true, ..rules });
    let Ok(Some(again)) = again else { panic!("what was written cannot be read: {again:?}") };
    assert!(written.is_empty(), "a head was written with something behind it");
    assert_eq!(read.head.headers.len() + usize::from(read.framing == Framing::Chunked), {
        again.head.headers.len() + usize::from(again.framing == Framing::Chunked)
    });
    assert_same(&read, &again);
}

fn assert_same(one: &Request, other: &Request) {
    assert_eq!(one.framing, other.framing);
    let parts =
        |request: &Request| (request.head.method.clone(), request.head.authority.clone(), request.head.path.clone());
    assert_eq!(parts(one), parts(other));
    assert_eq!(one.head.headers, other.head.headers);
}

/// The first byte chooses the request's method.
pub fn response(data: &[u8]) {
    let mut input = Input(data);
    let method = [Method::GET, Method::HEAD, Method::CONNECT, Method::POST][input.below(4)].clone();
    let Ok(Some(read)) = response::parse(&mut BytesMut::from(input.0), &method, &LIMITS) else { return };
    let mut written = BytesMut::new();
    encode::response(&mut written, &read.head, read.framing, encode::Connection::KeepAlive, 0);
    let again = response::parse(&mut written, &method, &LIMITS);
    let Ok(Some(again)) = again else { panic!("what was written cannot be read: {again:?}") };
    assert!(written.is_empty(), "a head was written with something behind it");
    assert_eq!((again.framing, again.head.status), (read.framing, read.head.status));
    assert_eq!(again.head.headers, read.head.headers);
}

/// The first byte chooses the framing, the second how long the pieces are.
pub fn body(data: &[u8]) {
    let mut input = Input(data);
    let framing = match input.byte() {
        0 => Framing::Close,
        length @ 1..64 => Framing::Length(u64::from(length) * 7),
        _ => Framing::Chunked,
    };
    let step = usize::from(input.byte()) + 1;
    let whole = decoded(framing, input.0, usize::MAX);
    let pieces = decoded(framing, input.0, step);
    assert_eq!(whole, pieces);
}

/// Data, and how it ended: with what is behind it, or why not.
fn decoded(framing: Framing, data: &[u8], step: usize) -> (Vec<u8>, Result<Option<Vec<u8>>, Refusal>) {
    let (mut decoder, mut buffer, mut got) = (Decoder::new(framing), BytesMut::new(), Vec::new());
    let mut rest = data;
    loop {
        match decoder.next(&mut buffer, rest.is_empty()) {
            Ok(Piece::Data(data)) => {
                assert!(!data.is_empty());
                got.extend_from_slice(&data);
            }
            Ok(Piece::End(trailers)) => {
                let behind = [&buffer[..], rest].concat();
                assert!(trailers.is_none_or(|trailers| trailers.len() <= data.len()));
                return (got, Ok(Some(behind)));
            }
            Ok(Piece::More) if rest.is_empty() => return (got, Ok(None)),
            Ok(Piece::More) => {
                let (more, left) = rest.split_at(step.min(rest.len()));
                buffer.extend_from_slice(more);
                rest = left;
            }
            Err(refusal) => return (got, Err(refusal)),
        }
    }
}

//! What must hold of a connection, whatever its peer sends and whatever is done with its streams meanwhile.

use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lateen_engine::config::cluster::Http2Options;
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Scheme, Version};

use super::connection::Connection;
use super::frame::{Head, PREFACE, Reason, kind};
use super::{Accepted, Opener, RecvStream, Role, SendStream, Settings};
use crate::fuzz::Input;

/// A server and what its client sends.
pub fn server(data: &[u8]) {
    let connection = connect(Role::Server(Scheme::Http));
    feed(&connection, &[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
    run(&connection, None, Input(data));
}

/// A client and what its server sends.
pub fn client(data: &[u8]) {
    let connection = connect(Role::Client);
    feed(&connection, &frame(kind::SETTINGS, 0, 0, &[]));
    run(&connection, Some(&Opener(Rc::clone(&connection))), Input(data));
}

fn connect(role: Role) -> Rc<Connection> {
    let options = Http2Options { max_concurrent_streams: 20, ..Http2Options::default() };
    Rc::new(Connection::new(role, Settings::new(&options, 8 << 10, 50), Instant::now()))
}

fn feed(connection: &Rc<Connection>, bytes: &[u8]) {
    connection.state().receive(&mut BytesMut::from(bytes));
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

/// What is held of streams, in whatever state they are.
type Held = Vec<(Option<RecvStream>, Option<SendStream>)>;

/// The input is a list of deeds.
fn run(connection: &Rc<Connection>, opener: Option<&Opener>, mut input: Input<'_>) {
    let mut held = Held::new();
    while !input.is_empty() {
        match input.byte() {
            // A frame, with a head that is one.
            0..160 => {
                let (kind, flags, stream) = (input.byte() % 11, input.byte(), u32::from(input.byte()));
                let length = usize::from(input.byte());
                let payload = input.take(length);
                feed(connection, &frame(kind, flags, stream, payload));
            }
            // Bytes as they are.
            160..180 => {
                let length = usize::from(input.byte());
                feed(connection, input.take(length));
            }
            180..210 => match opener {
                Some(opener) => {
                    let opened = opener.open(&head(), input.below(2) == 0);
                    held.extend(opened.ok().map(|(receive, send)| (Some(receive), send)));
                }
                None => {
                    held.extend(Accepted::next(connection).map(|accepted| (accepted.body, Some(accepted.answer))));
                }
            },
            210..220 => drop(connection.state().out.take()),
            _ => use_one(&mut held, &mut input),
        }
        let state = connection.state();
        let open = state.streams.values().filter(|stream| !stream.is_over()).count();
        assert_eq!(state.open, open);
    }
    while let Some(accepted) = Accepted::next(connection) {
        drop(accepted);
    }
    drop(held);
    let state = connection.state();
    assert_eq!((state.open, state.streams.len()), (0, 0));
}

fn use_one(held: &mut Held, input: &mut Input<'_>) {
    if held.is_empty() {
        return;
    }
    let cx = &mut Context::from_waker(Waker::noop());
    let place = input.below(held.len().min(256));
    let (receive, send) = &mut held[place];
    match (input.below(8), receive, send) {
        (0, receive, _) => drop(receive.take()),
        (1, _, send) => drop(send.take()),
        (2, Some(receive), _) => drop(receive.poll_frame(cx)),
        (3, Some(receive), _) => drop(receive.poll_response(cx, drop)),
        (4, _, Some(send)) => {
            let answer = ResponseHead { status: StatusCode::OK, headers: fields(), version: Version::Http2 };
            let _ = send.send_head(&answer, input.below(2) == 0);
        }
        (5, _, Some(send)) => {
            let mut data = Bytes::from(vec![0; usize::from(input.byte()) * 500]);
            let _ = send.poll_data(&mut data, input.below(2) == 0, cx);
        }
        (6, _, Some(send)) => {
            let _ = send.send_trailers(&fields());
        }
        (7, _, Some(send)) => send.reset(Reason::CANCEL),
        _ => {}
    }
}

fn head() -> RequestHead {
    RequestHead {
        method: Method::POST,
        scheme: Scheme::Http,
        authority: Bytes::from_static(b"h"),
        path: Bytes::from_static(b"/"),
        headers: fields(),
        version: Version::Http2,
    }
}

fn fields() -> Headers {
    let mut fields = Headers::default();
    fields.append(HeaderName::from_static("x"), HeaderValue::from_static("y"));
    fields
}

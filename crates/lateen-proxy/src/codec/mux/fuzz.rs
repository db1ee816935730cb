//! What must hold of a tunnel, whatever its client sends and whatever is done with its streams meanwhile.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::connection::Connection;
use super::{MORE, Role, Stream};
use crate::codec::h2::frame::Head;
use crate::fuzz::Input;

/// The input is a list of deeds.
pub fn mux(data: &[u8]) {
    let connection = Rc::new(Connection::new(Role::Server, Instant::now()));
    let (mut input, mut held) = (Input(data), Vec::<Stream>::new());
    let cx = &mut Context::from_waker(Waker::noop());
    while !input.is_empty() {
        match input.byte() {
            // A frame, with a head that is one.
            0..160 => {
                let (kind, flags, stream) = (input.byte() % 11, input.byte(), u32::from(input.byte()));
                let length = usize::from(input.byte());
                let payload = input.take(length);
                let head = Head { length: payload.len(), kind, flags, stream };
                connection.state().receive(&[&head.bytes()[..], payload].concat());
            }
            // Bytes as they are.
            160..180 => {
                let length = usize::from(input.byte());
                connection.state().receive(input.take(length));
            }
            180..210 => held.extend(Stream::next_accepted(&connection)),
            210..220 => {
                let mut state = connection.state();
                drop(state.out.split());
                state.give_room_back();
                state.unblock();
            }
            _ if held.is_empty() => {}
            _ => {
                let place = input.below(held.len().min(256));
                match input.below(6) {
                    0 => drop(held.swap_remove(place)),
                    1 => held.swap_remove(place).refuse(),
                    2 => held[place].close(),
                    3 => drop(Pin::new(&mut held[place]).poll_shutdown(cx)),
                    4 => {
                        let data = vec![0; usize::from(input.byte()) * 500];
                        drop(Pin::new(&mut held[place]).poll_write(cx, &data));
                    }
                    _ => {
                        let mut room = [0; 2_000];
                        drop(Pin::new(&mut held[place]).poll_read(cx, &mut ReadBuf::new(&mut room)));
                    }
                }
            }
        }
        let state = connection.state();
        assert_eq!(state.open, state.streams.values().filter(|stream| !stream.is_over()).count());
    }
    held.extend(std::iter::from_fn(|| Stream::next_accepted(&connection)));
    drop(held);
    let state = connection.state();
    assert_eq!((state.open, state.streams.len(), state.more), (0, 0, MORE));
}

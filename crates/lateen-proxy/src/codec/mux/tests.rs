//! Connections without sockets: frames in, frames out.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::connection::{Connection, Phase};
use super::{How, LARGEST, MORE, Opener, Role, STREAMS, Stream, WINDOW, flag, kind};
use crate::codec::h2::frame::{HEAD, Head, Reason};

const PATIENCE: Duration = Duration::from_secs(5);

struct End(Rc<Connection>);

impl End {
    fn new(role: Role) -> Self {
        Self(Rc::new(Connection::new(role, Instant::now())))
    }

    fn server() -> Self {
        Self::new(Role::Server)
    }

    fn feed(&self, bytes: &[u8]) -> usize {
        self.0.state().receive(bytes)
    }

    /// What it has written since.
    fn written(&self) -> Vec<u8> {
        let mut state = self.0.state();
        let written = state.out.split().to_vec();
        state.give_room_back();
        state.unblock();
        written
    }

    fn frames(&self) -> Vec<(Head, Vec<u8>)> {
        let (written, mut frames) = (self.written(), Vec::new());
        let mut rest = &written[..];
        while let Some(head) = Head::read(rest) {
            frames.push((head, rest[HEAD..HEAD + head.length].to_vec()));
            rest = &rest[HEAD + head.length..];
        }
        frames
    }

    fn accept(&self) -> Option<Stream> {
        Stream::next_accepted(&self.0)
    }

    /// The error of the GOAWAY that it has written.
    fn failure(&self) -> Option<Reason> {
        let frames = self.frames();
        let (_, payload) = frames.iter().find(|(head, _)| head.kind == kind::GOAWAY)?;
        Some(Reason(u32::from_be_bytes(payload[4..].try_into().expect("four bytes"))))
    }

    /// How streams were stopped.
    fn stops(&self) -> Vec<(u32, Option<How>)> {
        let stops = self.frames().into_iter().filter(|(head, _)| head.kind == kind::STOP);
        stops.map(|(head, payload)| (head.stream, How::read(payload[0]))).collect()
    }
}

/// Two ends that know each other.
struct Two {
    client: End,
    server: End,
    opener: Opener,
}

impl Two {
    fn new() -> Self {
        let client = End::new(Role::Client);
        let opener = Opener(Rc::clone(&client.0));
        Self { client, server: End::server(), opener }
    }

    /// Passes on what both have to say, until they have nothing more.
    fn talk(&self) {
        loop {
            let (up, down) = (self.client.written(), self.server.written());
            assert_eq!((self.server.feed(&up), self.client.feed(&down)), (up.len(), down.len()));
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    fn open(&self) -> (Stream, Stream) {
        let stream = self.opener.open(PATIENCE).expect("there is room");
        self.talk();
        (stream, self.server.accept().expect("it came"))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

fn open(stream: u32) -> Vec<u8> {
    frame(kind::OPEN, 0, stream, &[])
}

fn stop(stream: u32, how: How) -> Vec<u8> {
    frame(kind::STOP, 0, stream, &[how.byte(), 0, 0, 0, 0, 0, 0, 0, 0])
}

fn poll<T>(poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
    poll(&mut Context::from_waker(Waker::noop()))
}

fn write(stream: &mut Stream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    poll(|cx| Pin::new(stream).poll_write(cx, bytes))
}

fn shut(stream: &mut Stream) {
    assert!(matches!(poll(|cx| Pin::new(stream).poll_shutdown(cx)), Poll::Ready(Ok(()))));
}

/// What is there; none if nothing is yet.
fn read(stream: &mut Stream, most: usize) -> Option<io::Result<Vec<u8>>> {
    let mut room = vec![0; most];
    let mut buffer = ReadBuf::new(&mut room);
    match poll(|cx| Pin::new(stream).poll_read(cx, &mut buffer)) {
        Poll::Pending => None,
        Poll::Ready(result) => Some(result.map(|()| buffer.filled().to_vec())),
    }
}

fn kind_of<T: std::fmt::Debug>(result: Option<io::Result<T>>) -> io::ErrorKind {
    result.expect("it is over").expect_err("by an error").kind()
}

#[test]
fn each_direction_carries_bytes_and_ends_on_its_own() {
    let two = Two::new();
    let (mut client, mut server) = two.open();
    assert!(read(&mut server, 10).is_none());
    assert!(matches!(write(&mut client, b"question"), Poll::Ready(Ok(8))));
    shut(&mut client);
    two.talk();
    assert_eq!(read(&mut server, 3).expect("it came").expect("well"), b"que");
    assert_eq!(
        poll(|cx| server.poll_take(cx)).map(|taken| taken.expect("well").to_vec()),
        Poll::Ready(b"stion".to_vec())
    );
    assert_eq!(read(&mut server, 10).expect("the end came").expect("well"), b"");
    assert!(matches!(write(&mut server, b"answer"), Poll::Ready(Ok(6))));
    shut(&mut server);
    drop(server);
    two.talk();
    assert_eq!(read(&mut client, 10).expect("it came").expect("well"), b"answer");
    assert_eq!(read(&mut client, 10).expect("the end came").expect("well"), b"");
    drop(client);
    two.talk();
    assert!(two.client.0.state().streams.is_empty() && two.server.0.state().streams.is_empty());
    assert!(two.opener.is_open());
}

/// Sends as much as goes without a reader, which is what `read_each` at a time lets through then.
#[test]
fn windows_bound_what_lies_unread_and_grow_for_quick_readers() {
    let two = Two::new();
    let (mut client, mut server) = two.open();
    let data = vec![7; 3 << 20];
    let send = |client: &mut Stream, rest: &mut &[u8]| {
        while let Poll::Ready(Ok(sent)) = write(client, rest) {
            *rest = &rest[sent..];
            two.talk();
            if rest.is_empty() {
                break;
            }
        }
    };
    let mut rest = &data[..];
    send(&mut client, &mut rest);
    assert_eq!(data.len() - rest.len(), WINDOW as usize);
    let (mut received, mut most) = (0, 0);
    while received < data.len() {
        let unread = two.server.0.state().streams[&1].data.len();
        most = most.max(unread);
        received += read(&mut server, 16 << 10).expect("more is there").expect("well").len();
        two.talk();
        send(&mut client, &mut rest);
    }
    assert!((WINDOW as usize * 2..=LARGEST as usize).contains(&most), "{most}");
    assert_eq!(two.server.0.state().more, MORE - (LARGEST - WINDOW));
    drop((client, server));
    assert_eq!(two.server.0.state().more, MORE, "what one had others may have");
}

#[test]
fn the_client_learns_whether_anything_was_read_since() {
    let two = Two::new();
    let (mut client, mut server) = two.open();
    let begin = client.mark();
    assert!(write(&mut client, b"first").is_ready());
    two.talk();
    assert_eq!(read(&mut server, 10).expect("it came").expect("well"), b"first");
    let before = client.mark();
    assert!(write(&mut client, b"second").is_ready());
    server.close();
    drop(server);
    two.talk();
    assert_eq!(read(&mut client, 10).expect("it is over").expect("by an end"), b"");
    assert!(client.is_unread_since(before) && !client.is_unread_since(begin));
    assert!(client.take_refused().is_none());
    assert!(
        matches!(write(&mut client, b"third"), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe)
    );

    let (mut client, server) = two.open();
    let before = client.mark();
    assert!(write(&mut client, b"second").is_ready());
    drop(server);
    two.talk();
    assert_eq!(kind_of(read(&mut client, 10)), io::ErrorKind::ConnectionReset);
    assert!(client.is_unread_since(before));
}

#[test]
fn what_is_refused_may_be_said_elsewhere() {
    let two = Two::new();
    let mut client = two.opener.open(PATIENCE).expect("there is room");
    assert!(write(&mut client, b"hello ").is_ready() && write(&mut client, b"there").is_ready());
    two.talk();
    two.server.accept().expect("it came").refuse();
    two.talk();
    assert_eq!(kind_of(read(&mut client, 10)), io::ErrorKind::ConnectionRefused);
    assert_eq!(client.take_refused().as_deref(), Some(&b"hello there"[..]));
    // Not what somebody has begun to answer.
    let (mut client, mut server) = two.open();
    assert!(write(&mut server, b"welcome").is_ready());
    two.talk();
    assert!(write(&mut client, b"hello").is_ready());
    assert!(two.client.0.state().streams.values().all(|stream| stream.unaccepted.is_none()));
    drop(server);
    two.talk();
    assert!(client.take_refused().is_none());
}

#[test]
fn a_server_that_leaves_says_what_it_did_not_serve() {
    let two = Two::new();
    let (mut kept, mut server) = two.open();
    two.server.0.state().leave();
    let mut late = two.opener.open(PATIENCE).expect("it does not know yet");
    assert!(write(&mut late, b"hello").is_ready());
    two.talk();
    assert!(two.server.accept().is_none() && !two.opener.is_open() && two.opener.open(PATIENCE).is_none());
    assert_eq!(late.take_refused().as_deref(), Some(&b"hello"[..]));
    assert!(write(&mut server, b"still there").is_ready());
    two.talk();
    assert_eq!(read(&mut kept, 20).expect("it came").expect("well"), b"still there");

    // One that drains serves those too.
    let two = Two::new();
    two.server.0.state().warn();
    let _late = two.opener.open(PATIENCE).expect("it does not know yet");
    two.talk();
    assert!(two.server.accept().is_some() && !two.opener.is_open());
}

#[test]
fn no_more_streams_than_agreed_on_are_opened_or_served() {
    let two = Two::new();
    let mut held: Vec<_> = (0..STREAMS).map(|_| two.open()).collect();
    assert!(two.opener.open(PATIENCE).is_none());
    let next = STREAMS as u32 + 1;
    two.server.feed(&open(next));
    assert_eq!(two.server.stops(), [(next, Some(How::Refused))]);
    held.pop();
    two.server.feed(&two.client.written());
    two.server.feed(&open(next + 1));
    assert!(two.server.accept().is_some());
}

#[test]
fn a_peer_that_is_silent_is_asked_and_then_given_up() {
    let two = Two::new();
    let (mut served, mut server) = two.open();
    assert!(write(&mut server, b"a").is_ready());
    two.talk();
    let now = two.client.0.state().now;
    let id = two.client.0.state().open(now + PATIENCE, PATIENCE).expect("there is room");
    assert_eq!(two.client.0.state().asked, Some(now + 2 * PATIENCE));
    assert!(two.client.frames().iter().any(|(head, _)| head.kind == kind::PING));
    two.client.0.state().give_up();
    assert!(!two.opener.is_open());
    assert_eq!(two.client.0.state().streams[&id].end, Some(super::stream::End::Lost(io::ErrorKind::TimedOut)));
    assert_eq!(read(&mut served, 10).expect("it came").expect("well"), b"a", "it may come back for those");
    assert!(read(&mut served, 10).is_none());
}

#[test]
fn rules_that_are_broken_end_the_connection() {
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let too_much = [open(1), frame(kind::DATA, 0, 1, &[0; 16_384]).repeat(5)].concat();
    let widest = frame(kind::WINDOW, 0, 1, &u32::MAX.to_be_bytes());
    for (bytes, reason) in [
        (frame(kind::DATA, 0, 1, b"idle"), Reason::PROTOCOL_ERROR),
        (frame(kind::DATA, 0, 0, b"none"), Reason::PROTOCOL_ERROR),
        (open(2), Reason::PROTOCOL_ERROR),
        ([open(1), open(1)].concat(), Reason::PROTOCOL_ERROR),
        (frame(kind::OPEN, 0, 1, b"more"), Reason::FRAME_SIZE_ERROR),
        (frame(kind::OPEN, 0, 0, &[]), Reason::PROTOCOL_ERROR),
        ([open(1), stop(1, How::Refused)].concat(), Reason::PROTOCOL_ERROR),
        ([open(1), frame(kind::STOP, 0, 1, &[3, 0, 0, 0, 0, 0, 0, 0, 0])].concat(), Reason::PROTOCOL_ERROR),
        ([open(1), frame(kind::STOP, 0, 1, &[0; 8])].concat(), Reason::FRAME_SIZE_ERROR),
        (
            [open(1), frame(kind::DATA, flag::END, 1, b"a"), frame(kind::DATA, 0, 1, b"b")].concat(),
            Reason::STREAM_CLOSED,
        ),
        (too_much, Reason::FLOW_CONTROL_ERROR),
        ([open(1), widest].concat(), Reason::FLOW_CONTROL_ERROR),
        (frame(kind::PING, 0, 0, b"short"), Reason::FRAME_SIZE_ERROR),
        (frame(kind::PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        (frame(kind::GOAWAY, 0, 0, &[0; 8]), Reason::PROTOCOL_ERROR),
        (frame(0x4, 0, 0, &[]), Reason::PROTOCOL_ERROR),
        (frame(0xff, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        (vec![0, 0x40, 1, kind::DATA, 0, 0, 0, 0, 1], Reason::FRAME_SIZE_ERROR),
        (ping.repeat(3_000), Reason::ENHANCE_YOUR_CALM),
        ([open(1), frame(kind::DATA, 0, 1, &[]).repeat(3_000)].concat(), Reason::ENHANCE_YOUR_CALM),
        ((1..4_000).flat_map(|id| [open(id), stop(id, How::Aborted)].concat()).collect(), Reason::ENHANCE_YOUR_CALM),
        ((1..4_000).flat_map(open).collect(), Reason::ENHANCE_YOUR_CALM),
    ] {
        let server = End::server();
        server.feed(&bytes);
        assert_eq!(server.failure(), Some(reason), "{:?}", &bytes[..bytes.len().min(40)]);
        let state = server.0.state();
        assert!(state.streams.is_empty() && state.open == 0 && state.phase == Phase::Failed);
    }
    let two = Two::new();
    let (client, _server) = two.open();
    for bytes in [open(2), stop(2, How::Aborted), frame(kind::DATA, 0, 2, b"never opened")] {
        let client = End::new(Role::Client);
        client.feed(&bytes);
        assert_eq!(client.failure(), Some(Reason::PROTOCOL_ERROR), "{bytes:?}");
    }
    two.client.feed(&frame(kind::WINDOW, 0, 1, &[0, 0, 0, 1]));
    two.client.feed(&stop(1, How::Refused));
    assert_eq!(two.client.failure(), Some(Reason::PROTOCOL_ERROR), "it was served");
    drop(client);
}

#[test]
fn many_short_connections_are_no_flood() {
    let two = Two::new();
    for _ in 0..10_000 {
        let (mut client, mut server) = two.open();
        assert!(write(&mut client, b"ping").is_ready());
        two.talk();
        assert!(read(&mut server, 10).is_some() && write(&mut server, b"pong").is_ready());
        two.talk();
        assert!(read(&mut client, 10).is_some());
        drop(client);
        two.talk();
    }
    assert!(two.opener.is_open());
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
fn any_frame(number: &mut impl FnMut(usize) -> usize, next: &mut u32) -> Vec<u8> {
    let stream = number(*next as usize + 1) as u32;
    match number(40) {
        0 => frame(number(10) as u8, number(3) as u8, stream, &vec![0; number(12)]),
        1 => frame(kind::PING, number(2) as u8, 0, &[0; 8]),
        2..14 => {
            *next += 1;
            open(*next - 1)
        }
        14..20 => stop(stream.max(1), [How::Closed, How::Aborted][number(2)]),
        20..24 => frame(kind::WINDOW, 0, stream.max(1), &[0, 0, number(256) as u8, 1]),
        _ => frame(kind::DATA, u8::from(number(6) == 0), stream.max(1), &vec![1; number(3_000)]),
    }
}

#[test]
fn whatever_a_peer_sends_counts_stay_right() {
    for seed in 1..2_000 {
        let mut number = numbers(seed);
        let (server, mut next, mut held) = (End::server(), 1, Vec::<Stream>::new());
        for _ in 0..number(200) {
            match number(5) {
                0 => held.extend(server.accept()),
                1 if !held.is_empty() => {
                    let place = number(held.len());
                    match number(6) {
                        0 => drop(held.swap_remove(place)),
                        1 => held.swap_remove(place).refuse(),
                        2 => held[place].close(),
                        3 => drop(poll(|cx| Pin::new(&mut held[place]).poll_shutdown(cx))),
                        4 => drop(write(&mut held[place], &vec![0; number(100_000)])),
                        _ => drop(read(&mut held[place], 2_000)),
                    }
                }
                _ => drop(server.feed(&any_frame(&mut number, &mut next))),
            }
            let state = server.0.state();
            let open = state.streams.values().filter(|stream| !stream.is_over()).count();
            assert_eq!(state.open, open, "seed {seed}");
        }
        held.extend(std::iter::from_fn(|| server.accept()));
        drop(held);
        let state = server.0.state();
        assert_eq!((state.open, state.streams.len(), state.more), (0, 0, MORE), "seed {seed}");
    }
}

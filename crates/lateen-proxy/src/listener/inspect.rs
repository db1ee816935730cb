//! The first bytes of a connection, before its filter chain is chosen: PROXY protocol, a TLS hello, HTTP, or silence.
//!
//! Silence is a sign, too: where the server speaks first (MySQL, SMTP) the client waits. After the listener's time-out the
//! connection goes on as plain TCP, and its destination is remembered, so that the next connection there need not wait long.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lateen_engine::config::listener::Inspect;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::tls::hello::{self, Hello, NoHello};

/// Most first messages are no longer.
const ROOM: usize = 2 << 10;
/// How much is read at most before a decision is made without more.
const MOST: usize = 64 << 10;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client is waited for at a destination where the server is known to speak first.
const KNOWN_WAIT: Duration = Duration::from_millis(20);

/// What the first bytes told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) tls: bool,
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<Vec<u8>>,
    /// By PROXY protocol.
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
}

/// Destinations where clients kept silent. Bounded: the oldest half goes when it is full.
#[derive(Debug, Default)]
pub(crate) struct ServerFirst(Mutex<HashMap<SocketAddr, u64>>);

impl ServerFirst {
    const MOST: usize = 4096;

    fn knows(&self, destination: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains_key(&destination)
    }

    fn learn(&self, destination: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let order = known.values().max().map_or(0, |last| last + 1);
        known.insert(destination, order);
        if known.len() > Self::MOST {
            let mut orders: Vec<u64> = known.values().copied().collect();
            orders.sort_unstable();
            let middle = orders[orders.len() / 2];
            known.retain(|_, order| *order >= middle);
        }
    }

    fn forget(&self, destination: SocketAddr) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&destination);
    }
}

/// Reads as much as it takes; what was read stays in `prefix`. None if the connection is to be closed.
pub(super) async fn inspect(
    stream: &TcpStream,
    inspect: &Inspect,
    destination: SocketAddr,
    server_first: &ServerFirst,
    prefix: &mut BytesMut,
) -> Option<Seen> {
    let mut seen = Seen::default();
    let wants = Wants { tls: inspect.tls.holds(destination.port()), http: inspect.http.holds(destination.port()) };
    if !(wants.tls || wants.http || inspect.proxy_protocol) {
        return Some(seen);
    }
    let known = (wants.tls || wants.http) && inspect.continue_on_timeout && server_first.knows(destination);
    let patience = if known { Some(KNOWN_WAIT) } else { inspect.timeout };
    let deadline = patience.map(|patience| Instant::now() + patience);
    let mut proxied = !inspect.proxy_protocol;
    loop {
        if !proxied {
            match proxy_protocol(prefix) {
                Look::More => {}
                Look::Bad => return None,
                Look::Is(addresses) => {
                    proxied = true;
                    (seen.remote, seen.local) =
                        addresses.map_or((None, None), |(remote, local)| (Some(remote), Some(local)));
                }
            }
        }
        match if proxied { decide(prefix, wants, &mut seen) } else { Look::More } {
            Look::Is(()) => {
                if known {
                    server_first.forget(destination);
                }
                return Some(seen);
            }
            Look::Bad => return None,
            // It began as TLS, and does not get to its end: it is no plain text for all that.
            Look::More if prefix.len() >= MOST => return None,
            Look::More => {}
        }
        match more(stream, prefix, deadline).await {
            Read::Bytes => {}
            Read::End if prefix.is_empty() => return None,
            Read::End => return Some(seen),
            Read::TimedOut if inspect.continue_on_timeout && proxied => {
                if prefix.is_empty() {
                    server_first.learn(destination);
                }
                return Some(seen);
            }
            Read::TimedOut => return None,
        }
    }
}

enum Read {
    Bytes,
    End,
    TimedOut,
}

async fn more(stream: &TcpStream, prefix: &mut BytesMut, deadline: Option<Instant>) -> Read {
    let reading = async {
        loop {
            if stream.readable().await.is_err() {
                return Read::End;
            }
            prefix.reserve(ROOM);
            match stream.try_read_buf(prefix) {
                Ok(0) => return Read::End,
                Ok(_) => return Read::Bytes,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Read::End,
            }
        }
    };
    match deadline {
        None => reading.await,
        Some(deadline) => tokio::time::timeout_at(deadline, reading).await.unwrap_or(Read::TimedOut),
    }
}

/// What the inspectors that run for a connection look for.
#[derive(Clone, Copy)]
struct Wants {
    tls: bool,
    http: bool,
}

/// What the chains ask for, once the bytes tell it.
fn decide(bytes: &[u8], wants: Wants, seen: &mut Seen) -> Look<()> {
    if bytes.is_empty() {
        return Look::More;
    }
    if wants.tls && bytes[0] == 0x16 {
        let hello = match hello::parse(bytes) {
            Ok(None) => return Look::More,
            Ok(Some(hello)) => hello,
            // Something that starts like TLS and is not: let TLS say so.
            Err(NoHello::Other) => Hello::default(),
            Err(NoHello::Broken) => return Look::Bad,
        };
        (seen.tls, seen.sni, seen.alpn) = (true, hello.sni, hello.alpn);
        return Look::Is(());
    }
    if !wants.http {
        return Look::Is(());
    }
    match http(bytes) {
        Look::More => Look::More,
        Look::Bad => Look::Is(()),
        Look::Is(protocol) => {
            seen.alpn = vec![protocol.to_vec()];
            Look::Is(())
        }
    }
}

enum Look<T> {
    Is(T),
    More,
    /// It is something else.
    Bad,
}

/// HTTP/1.x by its request line, HTTP/2 by its preface.
fn http(bytes: &[u8]) -> Look<&'static [u8]> {
    if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        return if bytes.len() >= PREFACE.len() { Look::Is(b"h2c") } else { Look::More };
    }
    const LONGEST: usize = 8 << 10;
    let method = bytes.iter().position(|byte| !byte.is_ascii_uppercase()).unwrap_or(bytes.len());
    if method > 16 || (method < bytes.len() && (method == 0 || bytes[method] != b' ')) {
        return Look::Bad;
    }
    match memchr::memchr(b'\n', bytes) {
        None if bytes.len() < LONGEST => Look::More,
        None => Look::Bad,
        Some(end) => {
            let line = bytes[..end].trim_ascii_end();
            if line.ends_with(b" HTTP/1.1") {
                Look::Is(b"http/1.1")
            } else if line.ends_with(b" HTTP/1.0") {
                Look::Is(b"http/1.0")
            } else {
                Look::Bad
            }
        }
    }
}

type Addresses = Option<(SocketAddr, SocketAddr)>;

/// A PROXY protocol header, which is taken off `bytes`. None inside: it says nothing of addresses.
fn proxy_protocol(bytes: &mut BytesMut) -> Look<Addresses> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return Look::More;
    }
    if !bytes.starts_with(b"PROXY ") {
        return Look::Bad;
    }
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(108)]) else {
        return if bytes.len() < 108 { Look::More } else { Look::Bad };
    };
    let Some(line) = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()) else {
        return Look::Bad;
    };
    let line = line.to_owned();
    bytes.advance(end + 1);
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Look::Is(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                let ip = ip.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (*family == "TCP4"))?;
                Some(SocketAddr::new(ip, port.parse().ok()?))
            };
            match (address(source, source_port), address(destination, destination_port)) {
                (Some(source), Some(destination)) => Look::Is(Some((source, destination))),
                _ => Look::Bad,
            }
        }
        _ => Look::Bad,
    }
}

fn version_2(bytes: &mut BytesMut) -> Look<Addresses> {
    if bytes.len() < 16 {
        return Look::More;
    }
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MOST || bytes[12] >> 4 != 2 {
        return Look::Bad;
    }
    if bytes.len() < length {
        return Look::More;
    }
    let header = bytes.split_to(length);
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match (header[12] & 0xF, header[13]) {
        (0, _) => Look::Is(None),
        (1, 0x11) if length >= 16 + 12 && are_values(&header[16 + 12..]) => {
            let ip = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            Look::Is(Some((SocketAddr::new(ip(16), port(24)), SocketAddr::new(ip(20), port(26)))))
        }
        (1, 0x21) if length >= 16 + 36 && are_values(&header[16 + 36..]) => {
            let ip = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).map(IpAddr::from);
            match (ip(16), ip(32)) {
                (Ok(source), Ok(destination)) => {
                    Look::Is(Some((SocketAddr::new(source, port(48)), SocketAddr::new(destination, port(50)))))
                }
                _ => Look::Bad,
            }
        }
        (1, 0x11 | 0x21) => Look::Bad,
        (1, _) => Look::Is(None),
        _ => Look::Bad,
    }
}

/// Whether these are values with their types and lengths in front, which say nothing here.
fn are_values(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk::<3>() {
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes([head[1], head[2]]))..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

/// What fuzzers look at: none while more must come; whether it is one, and where it took the client to come from and go to.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz_proxy_protocol(bytes: &mut BytesMut) -> Option<Result<Addresses, ()>> {
    match proxy_protocol(bytes) {
        Look::More => None,
        Look::Bad => Some(Err(())),
        Look::Is(addresses) => Some(Ok(addresses)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_line() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(&b"http/1.1"[..])),
            (b"POST /a b HTTP/1.0\r\n", Some(b"http/1.0")),
            (PREFACE, Some(b"h2c")),
            (b"\x16\x03\x01", None),
            (b"SSH-2.0-x\r\n", None),
            (b"hello there\n", None),
        ] {
            match (http(bytes), expected) {
                (Look::Is(found), Some(expected)) => assert_eq!(found, expected),
                (Look::Bad, None) => {}
                _ => panic!("{:?}", String::from_utf8_lossy(bytes)),
            }
        }
        assert!(matches!(http(b"GE"), Look::More) && matches!(http(b"PRI * HT"), Look::More));
    }

    #[test]
    fn proxy_headers_of_both_versions() {
        let mut bytes = BytesMut::from("PROXY TCP4 203.0.113.7 10.0.0.1 5000 80\r\nrest");
        let Look::Is(Some((source, destination))) = proxy_protocol(&mut bytes) else { panic!("version 1") };
        assert_eq!((source.to_string(), destination.to_string()), ("203.0.113.7:5000".into(), "10.0.0.1:80".into()));
        assert_eq!(&bytes[..], b"rest");
        let mut second = BytesMut::from(
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbbx"[..],
        );
        let Look::Is(Some((source, destination))) = proxy_protocol(&mut second) else { panic!("version 2") };
        assert_eq!((source.to_string(), destination.to_string()), ("1.2.3.4:80".into(), "5.6.7.8:443".into()));
        assert_eq!(&second[..], b"x");
        assert!(matches!(proxy_protocol(&mut BytesMut::from("GET / HTTP/1.1")), Look::Bad));
    }

    #[test]
    fn silent_destinations_are_forgotten_when_there_are_too_many() {
        let memory = ServerFirst::default();
        for port in 1..=5000u16 {
            memory.learn(([10, 0, 0, 1], port).into());
        }
        assert!(memory.knows(([10, 0, 0, 1], 5000).into()) && !memory.knows(([10, 0, 0, 1], 1).into()));
        assert!(memory.0.lock().expect("not poisoned").len() <= ServerFirst::MOST);
    }
}

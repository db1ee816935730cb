//! A client's first words, as far as they tell where it wants to go and what it speaks.

use bytes::BytesMut;
use tokio::net::TcpStream;

/// The longest that is looked at.
const MOST: usize = 64 << 10;
/// Most are no longer.
const ROOM: usize = 2 << 10;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Hello {
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// There is no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHello {
    /// The bytes are something else.
    Other,
    /// It begins as one, and is not what it says. TLS may be more lenient, and read a name that was not seen here.
    Broken,
}

/// Reads a client's hello onto `prefix`, unless it is there already; none if the client says something else. What is wrong
/// with it, or that it ends, is for TLS to say.
pub(super) async fn of(socket: &TcpStream, prefix: &mut BytesMut) -> Option<Hello> {
    loop {
        if let Some(hello) = parse(prefix).ok()? {
            return Some(hello);
        }
        socket.readable().await.ok()?;
        prefix.reserve(ROOM);
        match socket.try_read_buf(prefix) {
            Ok(1..) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// SNI and ALPN of a TLS hello (RFC 8446 section 4.1.2), which may span several records; none while it is not whole.
///
/// # Errors
/// It is no hello, or longer than any.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Hello>, NoHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((header, body)) = rest.split_at_checked(5) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != 0x16 || header[1] != 3 || length == 0 || length > (16 << 10) + 256 {
            return Err(NoHello::Other);
        }
        let Some((fragment, behind)) = body.split_at_checked(length) else { return Ok(None) };
        message.extend_from_slice(fragment);
        if message.len() >= 4 {
            let whole = 4 + usize::from(message[1]) * 65536 + usize::from(message[2]) * 256 + usize::from(message[3]);
            if message[0] != 1 || whole > MOST {
                return Err(NoHello::Other);
            }
            if message.len() >= whole {
                return hello(&message[4..whole]).map(Some).ok_or(NoHello::Broken);
            }
        }
        rest = behind;
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// A field with its length in front, in `size` bytes.
fn vector<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let length = take(bytes, size)?.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte));
    take(bytes, length)
}

fn hello(mut bytes: &[u8]) -> Option<Hello> {
    take(&mut bytes, 2 + 32)?;
    vector(&mut bytes, 1)?;
    vector(&mut bytes, 2)?;
    vector(&mut bytes, 1)?;
    let mut hello = Hello::default();
    if bytes.is_empty() {
        return Some(hello);
    }
    let mut extensions = vector(&mut bytes, 2)?;
    while !extensions.is_empty() {
        let kind = take(&mut extensions, 2)?;
        let mut body = vector(&mut extensions, 2)?;
        match kind {
            [0, 0] => {
                let mut names = vector(&mut body, 2)?;
                while !names.is_empty() {
                    let is_host = take(&mut names, 1)? == [0];
                    let name = vector(&mut names, 2)?;
                    // Nobody's name has a blank, a line break or a zero in it; logs would have it.
                    if is_host && !name.iter().all(u8::is_ascii_graphic) {
                        return None;
                    }
                    if is_host {
                        hello.sni = Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase());
                    }
                }
            }
            [0, 16] => {
                let mut protocols = vector(&mut body, 2)?;
                while !protocols.is_empty() {
                    hello.alpn.push(vector(&mut protocols, 1)?.to_vec());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_and_protocols_are_read_and_garbage_is_not() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they are there")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"one".to_vec(), b"two".to_vec()];
        let name = "A.test".try_into().expect("it is a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("the configuration is good");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory takes it");
        let hello = Hello { sni: Some("a.test".to_owned()), alpn: vec![b"one".to_vec(), b"two".to_vec()] };
        assert_eq!(parse(&bytes), Ok(Some(hello)));
        (0..bytes.len()).for_each(|length| assert_eq!(parse(&bytes[..length]), Ok(None), "{length}"));
        for bytes in
            [&b"\x16\x02\x00\x00\x01\x00"[..], b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"]
        {
            assert_eq!(parse(bytes), Err(NoHello::Other), "{bytes:?}");
        }
        // A session identifier that takes more than it should, so that nothing behind it is what it says.
        let mut broken = bytes.clone();
        broken[5 + 4 + 2 + 32] += 1;
        assert_eq!(parse(&broken), Err(NoHello::Broken));
    }
}

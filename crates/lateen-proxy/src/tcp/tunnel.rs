//! A tunnel through a forward proxy: CONNECT over HTTP/1.1 (RFC 9110 section 9.3.6), then bytes.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stream::Stream;
use crate::telemetry::failure::{Failure, FailureKind};

/// The largest head of an answer.
const MAX_HEAD: usize = 16 << 10;
const MAX_FIELDS: usize = 100;

/// Asks for a tunnel to `host` (with its port). What followed the answer's head came through the tunnel, and is given back.
///
/// # Errors
/// Another answer than a success, or none.
pub(super) async fn open(stream: &mut Stream, host: &str) -> Result<BytesMut, Failure> {
    let refused = |reason: String| Failure::with(FailureKind::Connect, format!("no tunnel to {host}: {reason}"));
    let request = format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| refused(error.to_string()))?;
    let mut head = BytesMut::new();
    loop {
        match status(&head) {
            Ok(Some((200..=299, length))) => return Ok(head.split_off(length)),
            // Something interim, before the answer.
            Ok(Some((100..=199, length))) => drop(head.split_to(length)),
            Ok(Some((status, _))) => return Err(refused(format!("the answer is {status}"))),
            Ok(None) if head.len() > MAX_HEAD => return Err(refused("the answer's head is too large".to_owned())),
            Ok(None) => match stream.read_buf(&mut head).await {
                Ok(0) => return Err(refused("the connection ended".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(refused(error.to_string())),
            },
            Err(error) => return Err(refused(error.to_string())),
        }
    }
}

/// Status and length of a head, once it is whole.
fn status(head: &[u8]) -> Result<Option<(u16, usize)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    Ok(match response.parse(head)? {
        httparse::Status::Complete(length) => response.code.map(|code| (code, length)),
        httparse::Status::Partial => None,
    })
}

//! `lateen-proxy request`: asks the admin port of the proxy that runs beside it, from within its pod.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::ports;

/// An admin port that answers takes less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the body of the answer.
///
/// # Errors
/// No answer, or one that says no.
pub(crate) fn run(method: &str, path: &str) -> anyhow::Result<()> {
    let address = (Ipv4Addr::LOCALHOST, ports::ADMIN);
    let mut stream = TcpStream::connect(address).context("there is no proxy here")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the proxy does not answer")?;
    let (status, body) = split(&answer).context("the proxy's answer is no HTTP")?;
    if status != 200 {
        bail!("the proxy answers {status}: {}", String::from_utf8_lossy(body).trim_end());
    }
    std::io::stdout().write_all(body).context("cannot write the answer")
}

/// Status and body. The admin port tells the length of what it sends, and closes behind it.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    Some((head.code?, &answer[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        assert_eq!(split(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"), Some((200, b"abc".as_slice())));
        assert_eq!(split(b"HTTP/1.1 405 No\r\n\r\n"), Some((405, b"".as_slice())));
        assert_eq!(split(b"HTTP/1.1 2"), None);
    }
}

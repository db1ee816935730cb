//! HTTP/1.1: one request at a time on a connection that is kept.

use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Run;
use crate::connect;
use crate::message::BODY;

const REQUEST: &[u8] =
    b"GET /bench HTTP/1.1\r\nhost: bench.default.svc.cluster.local\r\nuser-agent: lateen-load\r\naccept: */*\r\n\r\n";

/// The same, to one of many hosts.
fn request_to(host: u64) -> Vec<u8> {
    let host = format!("host: service-{host}.default.svc.cluster.local");
    String::from_utf8_lossy(REQUEST).replace("host: bench.default.svc.cluster.local", &host).into_bytes()
}

pub(super) async fn drive(run: &Run) -> anyhow::Result<()> {
    let mut stream = connect(run.to).await?;
    let mut received = BytesMut::with_capacity(16 * 1024);
    let mut sent = 0;
    while let Some(due) = run.pace.next().await {
        match run.hosts {
            None => exchange(&mut stream, &mut received, REQUEST).await?,
            Some(hosts) => exchange(&mut stream, &mut received, &request_to(sent % hosts)).await?,
        }
        sent += 1;
        run.tally.answered(due);
    }
    Ok(())
}

/// One exchange on a new connection.
pub(super) async fn once(run: &Run, due: Instant) -> anyhow::Result<TcpStream> {
    let mut stream = connect(run.to).await?;
    exchange(&mut stream, &mut BytesMut::new(), REQUEST).await?;
    run.tally.answered(due);
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, received: &mut BytesMut, request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    loop {
        if stream.read_buf(received).await? == 0 {
            bail!("the connection was closed instead of an answer");
        }
        if let Some(length) = answer(received)? {
            received.advance(length);
            return if received.is_empty() { Ok(()) } else { bail!("more than one answer") };
        }
    }
}

/// The length of the answer, once it is complete; an error if it is not the right one.
fn answer(received: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(start) = head.parse(received)? else { return Ok(None) };
    if head.code != Some(200) {
        bail!("status {:?}", head.code);
    }
    let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(field.context("no content-length")?.value)?.parse()?;
    if length != BODY.len() {
        bail!("a body of {length} bytes");
    }
    match received[start..].get(..length) {
        None => Ok(None),
        Some(body) if body == BODY => Ok(Some(start + length)),
        Some(_) => bail!("a body that is not what the upstream sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::{BODY, answer, request_to};

    fn response(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nServer: x\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn a_request_names_the_host_that_it_is_for() {
        let request = String::from_utf8(request_to(17)).unwrap();
        assert!(request.contains("\r\nhost: service-17.default.svc.cluster.local\r\n"), "{request}");
    }

    #[test]
    fn only_the_whole_right_answer_counts() {
        let right = response("200 OK", BODY);
        assert_eq!(answer(&right).unwrap(), Some(right.len()));
        for cut in [0, 10, right.len() - BODY.len(), right.len() - 1] {
            assert_eq!(answer(&right[..cut]).unwrap(), None, "cut to {cut}");
        }
        let mut other = *BODY;
        other[1023] ^= 1;
        for wrong in [response("503 No", BODY), response("200 OK", &BODY[1..]), response("200 OK", &other)] {
            assert!(answer(&wrong).is_err(), "{}", String::from_utf8_lossy(&wrong));
        }
    }
}

//! Sends one row and reads the answer: bytes over TCP for HTTP/1.1, so that nothing tidies the request up on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Neither proxy may keep a client waiting longer than this in any row.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Response {
        status: u16,
        headers: BTreeMap<String, Vec<String>>,
        body: String,
    },
    /// The connection ended without a response.
    Closed,
}

/// Sends `text` (see `Row::send`) and reads until the proxy closes or the answer is whole.
pub(crate) async fn http1(to: SocketAddr, text: &str) -> Answer {
    let bytes = wire(text);
    let head_only = bytes.starts_with(b"HEAD ");
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.expect("the proxy listens");
        // The proxy may answer and close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let mut received = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(answer) = parse(&received, head_only, false) {
                return answer;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return parse(&received, head_only, true).unwrap_or(Answer::Closed),
                Ok(read) => received.extend_from_slice(&buffer[..read]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("no answer in {PATIENCE:?} to\n{text}"))
}

/// The text of a row as bytes: CRLF line ends, `\xNN` escapes.
fn wire(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""));
    let text = format!("{}\r\n\r\n{}", head.replace('\n', "\r\n"), body.trim_end_matches('\n').replace('\n', "\r\n"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits follow \\x"));
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The first final response in `received`, if it is whole.
fn parse(mut received: &[u8], head_only: bool, ended: bool) -> Option<Answer> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = response.parse(received) else { return None };
        let status = response.code.expect("a whole head has a code");
        let rest = &received[length..];
        if (100..200).contains(&status) && status != 101 {
            received = rest;
            continue;
        }
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for header in response.headers.iter() {
            let value = String::from_utf8_lossy(header.value).into_owned();
            map.entry(header.name.to_ascii_lowercase()).or_default().push(value);
        }
        let body = if head_only || status == 204 || status == 304 || status == 101 {
            Some(Vec::new())
        } else if map.contains_key("transfer-encoding") {
            dechunk(rest)
        } else if let Some(length) = map.get("content-length").and_then(|values| values[0].parse::<usize>().ok()) {
            rest.get(..length).map(<[u8]>::to_vec)
        } else {
            ended.then(|| rest.to_vec())
        };
        let body = String::from_utf8_lossy(&body?).into_owned();
        return Some(Answer::Response { status, headers: map, body });
    }
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((used, size))) = httparse::parse_chunk_size(rest) else { return None };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(used..used + size)?);
        rest = rest.get(used + size + 2..)?;
    }
}

/// The same request over HTTP/2 with prior knowledge.
pub(crate) async fn http2(to: SocketAddr, text: &str) -> Answer {
    let exchange = async {
        let stream = TcpStream::connect(to).await.expect("the proxy listens");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("HTTP/2 is accepted");
        tokio::spawn(connection);
        let Ok(response) = sender.send_request(translate(text)).await else { return Answer::Closed };
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Answer::Closed };
        let trailers = body.trailers().cloned().unwrap_or_default();
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in head.headers.iter().chain(&trailers) {
            headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Answer::Response { status: head.status.as_u16(), headers, body }
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("no answer in {PATIENCE:?} to\n{text}"))
}

fn translate(text: &str) -> Request<Full<Bytes>> {
    let (head, body) = text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""));
    let mut lines = head.lines();
    let mut words = lines.next().expect("a request has a first line").split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let host = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).expect("a host").1;
    let mut request = Request::builder().method(method).uri(format!("http://{host}{path}"));
    for (name, value) in fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body.trim_end_matches('\n').as_bytes())))
        .expect("the row is a valid request")
}

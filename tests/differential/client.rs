//! Sends one row and reads the answer: bytes over TCP for HTTP/1.1, so that nothing tidies the request up on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificates::Certificates;
use crate::table::Row;

/// Neither proxy may keep a client waiting longer than this in any row.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Response {
        status: u16,
        headers: BTreeMap<String, Vec<String>>,
        body: String,
    },
    /// No HTTP.
    Bytes(String),
    /// The connection ended without a response.
    Closed,
}

/// What a server showed in the handshake.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) certificate: String,
    pub(crate) alpn: String,
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Sends `text`, the row's own, as the row says; gives what was seen of the handshake, too, where there was one.
pub(crate) async fn ask(to: SocketAddr, row: &Row, text: &str, certificates: &Certificates) -> (Answer, Option<Shown>) {
    let exchange = async {
        let stream = TcpStream::connect(to).await.expect("the proxy listens");
        let Some(tls) = &row.tls else { return (exchange(stream, row, text).await, None) };
        let connector = TlsConnector::from(certificates.client(tls));
        let Ok(stream) = connector.connect(tls.server_name(), stream).await else { return (Answer::Closed, None) };
        let (_, connection) = stream.get_ref();
        let shown = Shown {
            certificate: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map_or("none", |leaf| certificates.name_of(leaf))
                .to_owned(),
            alpn: String::from_utf8_lossy(connection.alpn_protocol().unwrap_or_default()).into_owned(),
        };
        (exchange(stream, row, text).await, Some(shown))
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("no answer in {PATIENCE:?} to\n{text}"))
}

async fn exchange(stream: impl Stream + 'static, row: &Row, text: &str) -> Answer {
    let answer = async {
        match (row.raw, row.http2) {
            (true, _) => raw(stream, &escaped(text)).await,
            (false, true) => http2(stream, text, row.then.as_deref()).await,
            (false, false) => http1(stream, text, row.then.as_deref()).await,
        }
    };
    match row.leaves_after_ms {
        None => answer.await,
        Some(after) => tokio::time::timeout(Duration::from_millis(after), answer).await.unwrap_or(Answer::Closed),
    }
}

/// One request over HTTP/1.1 and a connection of its own.
pub(crate) async fn plain(to: SocketAddr, text: &str) -> Answer {
    let stream = TcpStream::connect(to).await.expect("the server listens");
    let exchange = http1(stream, text, None);
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("no answer in {PATIENCE:?} to\n{text}"))
}

/// Sends bytes and their end; all that comes back.
async fn raw(mut stream: impl Stream, bytes: &[u8]) -> Answer {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut received = Vec::new();
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = stream.read(&mut buffer).await
        && read > 0
    {
        received.extend_from_slice(&buffer[..read]);
    }
    if received.is_empty() { Answer::Closed } else { Answer::Bytes(String::from_utf8_lossy(&received).into_owned()) }
}

/// Sends `text` (see `Row::send`) and reads until the proxy closes or the answer is whole; then, on what the connection has
/// become, the bytes that follow.
async fn http1(mut stream: impl Stream, text: &str, then: Option<&str>) -> Answer {
    let bytes = wire(text);
    let head_only = bytes.starts_with(b"HEAD ") || bytes.starts_with(b"CONNECT ");
    // The proxy may answer and close before it has read everything.
    let _ = stream.write_all(&bytes).await;
    let mut received = Vec::new();
    let mut buffer = [0; 16 << 10];
    let mut answer = loop {
        if let Some(answer) = parse(&received, head_only, false) {
            break answer;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return parse(&received, head_only, true).unwrap_or(Answer::Closed),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
        }
    };
    if let (Some(then), Answer::Response { status: 101 | 200, body, .. }) = (then, &mut answer) {
        *body = said(&mut stream, then).await;
    }
    answer
}

/// The text of a row as bytes: CRLF line ends, and escapes.
fn wire(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""));
    let text = format!("{}\r\n\r\n{}", head.replace('\n', "\r\n"), body.trim_end_matches('\n').replace('\n', "\r\n"));
    escaped(&text)
}

/// `\xNN` as bytes.
fn escaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
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

/// The same request over HTTP/2.
async fn http2(stream: impl Stream + 'static, text: &str, then: Option<&str>) -> Answer {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = handshake else { return Answer::Closed };
    tokio::spawn(connection);
    let request = translate(text);
    if request.extensions().get::<Protocol>().is_some() {
        // With an answer the proxy's settings are here, without which the client asks for no protocol (RFC 8441 section 3).
        let first = Request::builder().uri("http://nobody.test/").body(Full::new(Bytes::new()));
        if sender.send_request(first.expect("the request is valid")).await.is_err() {
            return Answer::Closed;
        }
    }
    let is_tunnel = *request.method() == Method::CONNECT;
    let Ok(mut response) = sender.send_request(request).await else { return Answer::Closed };
    let tunnel = (is_tunnel && response.status().is_success()).then(|| hyper::upgrade::on(&mut response));
    let (head, body) = response.into_parts();
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut note = |fields: &http::HeaderMap| {
        for (name, value) in fields {
            headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
    };
    note(&head.headers);
    let body = match (tunnel, then) {
        (Some(tunnel), Some(then)) => match tunnel.await {
            Ok(upgraded) => said(&mut TokioIo::new(upgraded), then).await,
            Err(error) => format!("({error})"),
        },
        _ => {
            let Ok(body) = body.collect().await else { return Answer::Closed };
            body.trailers().into_iter().for_each(&mut note);
            String::from_utf8_lossy(&body.to_bytes()).into_owned()
        }
    };
    Answer::Response { status: head.status.as_u16(), headers, body }
}

/// Says `then`, and gives as many bytes of what comes back.
async fn said(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), then: &str) -> String {
    let _ = stream.write_all(then.as_bytes()).await;
    let _ = stream.flush().await;
    let mut back = vec![0; then.len()];
    match stream.read_exact(&mut back).await {
        Ok(_) => String::from_utf8_lossy(&back).into_owned(),
        Err(error) => format!("({:?})", error.kind()),
    }
}

fn translate(text: &str) -> Request<Full<Bytes>> {
    let (head, body) = text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""));
    let mut lines = head.lines();
    let mut words = lines.next().expect("a request has a first line").split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let field =
        |wanted: &str| fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value);
    let host = field("host").expect("a host");
    let mut request = match (method, field("upgrade")) {
        ("CONNECT", _) => Request::builder().method(method).uri(path),
        // RFC 8441 section 4.
        (_, Some(protocol)) => Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{host}{path}"))
            .extension(Protocol::from(protocol)),
        _ => Request::builder().method(method).uri(format!("http://{host}{path}")),
    };
    let others = |name: &&str| !["host", "connection", "upgrade"].iter().any(|known| name.eq_ignore_ascii_case(known));
    for (name, value) in fields.iter().filter(|(name, _)| others(name)) {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body.trim_end_matches('\n').as_bytes())))
        .expect("the row is a valid request")
}

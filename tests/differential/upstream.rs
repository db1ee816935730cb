//! The upstream behind both proxies: it answers with what it saw, and misbehaves where a request's headers ask it to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use lateen_testing::collector::Collector;

use crate::authorizer::Authorizers;
use crate::certificates::Certificates;
use crate::{limiter, tokens};

/// What one request looked like when it arrived.
pub(crate) type Seen = Value;

#[derive(Default)]
struct Ledger {
    /// Requests by their `x-row` header.
    seen: HashMap<String, Vec<Seen>>,
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// The same over TLS.
    pub(crate) tls: SocketAddr,
    /// Answers each line that it is sent, at every host; no HTTP.
    pub(crate) lines: SocketAddr,
    /// Accepts, reads and never answers.
    pub(crate) silent: SocketAddr,
    pub(crate) certificates: Certificates,
    /// A rate limit service.
    pub(crate) limiter: SocketAddr,
    pub(crate) authorizers: Authorizers,
    /// Of spans.
    pub(crate) collector: Collector,
    /// An address at which nobody listens: the socket is bound and never listens, so nobody else can take it.
    pub(crate) dead: SocketAddr,
    _dead: std::net::TcpListener,
    ledger: Arc<Mutex<Ledger>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listeners = listeners().await;
        let address = listeners[0].local_addr().expect("a bound socket has an address");
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let certificates = Certificates::new();
        for listener in listeners {
            tokio::spawn(accept(listener, Arc::clone(&ledger), None));
        }
        let secure = self::listeners().await;
        let tls = secure[0].local_addr().expect("a bound socket has an address");
        let acceptor = TlsAcceptor::from(certificates.server());
        for listener in secure {
            tokio::spawn(accept(listener, Arc::clone(&ledger), Some(acceptor.clone())));
        }
        let echoing = self::listeners().await;
        let lines = echoing[0].local_addr().expect("a bound socket has an address");
        for listener in echoing {
            tokio::spawn(serve_lines(listener));
        }
        let (dead, _dead) = refused();
        let (limiter, authorizers) = (limiter::start().await, Authorizers::start().await);
        let (silent, collector) = (silent().await, Collector::start().await);
        Self { collector, address, tls, lines, silent, certificates, limiter, authorizers, dead, _dead, ledger }
    }

    /// Takes what arrived with the given `x-row`.
    pub(crate) fn take(&self, row: &str) -> Vec<Seen> {
        self.ledger.lock().expect("no holder panics").seen.remove(row).unwrap_or_default()
    }
}

/// Hosts of the upstream: loopback addresses, all with the same port.
const HOSTS: u8 = 8;

async fn listeners() -> Vec<TcpListener> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let port = first.local_addr().expect("a bound socket has an address").port();
        let mut all = vec![first];
        for host in 2..=HOSTS {
            // Somebody else may have the port on one of the others.
            let Ok(listener) = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], port))).await else { break };
            all.push(listener);
        }
        if all.len() == usize::from(HOSTS) {
            return all;
        }
    }
    panic!("no port is free on all of {HOSTS} loopback addresses");
}

/// A listener whose backlog is never served would accept; one that is bound on another loopback address and asked on
/// this one refuses.
fn refused() -> (SocketAddr, std::net::TcpListener) {
    let holder = std::net::TcpListener::bind("127.0.0.2:0").expect("loopback can be bound");
    let port = holder.local_addr().expect("a bound socket has an address").port();
    (SocketAddr::from(([127, 0, 0, 3], port)), holder)
}

async fn accept(listener: TcpListener, ledger: Arc<Mutex<Ledger>>, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (ledger, tls) = (Arc::clone(&ledger), tls.clone());
        let host = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
        tokio::spawn(async move {
            let Some(tls) = tls else { return serve(stream, host, Value::Null, ledger).await };
            let Ok(stream) = tls.accept(stream).await else { return };
            let (_, connection) = stream.get_ref();
            let alpn = connection.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
            let seen = json!({
                "sni": connection.server_name(),
                "alpn": alpn,
                "client": connection.peer_certificates().is_some(),
            });
            serve(stream, host, seen, ledger).await;
        });
    }
}

/// Serves HTTP of either version on a connection; `tls` is what was seen of its handshake.
async fn serve<S>(stream: S, host: String, tls: Value, ledger: Arc<Mutex<Ledger>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, host.clone(), tls.clone(), Arc::clone(&ledger)));
    // A peer that goes away is part of the tests.
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Says of each line which host has heard it.
async fn serve_lines(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move { answer_lines(stream).await });
    }
}

async fn answer_lines(mut stream: TcpStream) -> std::io::Result<()> {
    let host = stream.local_addr()?.ip();
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await? > 0 {
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            stream.write_all(format!("{host} heard ").as_bytes()).await?;
            stream.write_all(&line).await?;
        }
    }
    stream.shutdown().await
}

/// An address whose connections are taken and left unanswered.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    address
}

/// Bytes of an upgraded connection come back as they are.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

/// Thrown by the service to make hyper drop the connection without an answer.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request asked for a reset")
    }
}

impl std::error::Error for Reset {}

async fn answer(
    mut request: Request<Incoming>,
    host: String,
    tls: Value,
    ledger: Arc<Mutex<Ledger>>,
) -> Result<Response<Full<Bytes>>, Reset> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Reset)?;
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    let ask = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let seen = json!({
        "host": host,
        "tls": tls,
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(ToString::to_string),
        "authority": head.uri.authority().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "trailers": trailers.map(|trailers| format!("{trailers:?}")),
    });
    let earlier = {
        let mut ledger = ledger.lock().expect("no holder panics");
        let arrived = ledger.seen.entry(ask("x-row").unwrap_or_default()).or_default();
        arrived.push(seen.clone());
        arrived.len() - 1
    };
    let number = |name: &str| ask(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(millis) = number("x-ask-delay-ms") {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let failing = number("x-ask-fail-first").is_none_or(|first| (earlier as u64) < first);
    if failing && ask("x-ask-reset").is_some() {
        return Err(Reset);
    }
    let status = number("x-ask-status")
        .filter(|_| failing)
        .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    if status == Some(StatusCode::SWITCHING_PROTOCOLS) || (head.method == Method::CONNECT && status.is_none()) {
        tokio::spawn(echo(upgrade));
    }
    let mut response = Response::builder().status(status.unwrap_or(StatusCode::OK)).header("x-upstream", "echo");
    for pair in ask("x-ask-headers").iter().flat_map(|all| all.split(',')).filter_map(|pair| pair.split_once('=')) {
        response = response.header(pair.0, pair.1);
    }
    let body = match head.uri.path() {
        "/keys" => tokens::key_set().into(),
        _ if ask("x-ask-body").is_some_and(|body| body == "none") => Bytes::new(),
        _ => "echo\n".into(),
    };
    Ok(response.body(Full::new(body)).expect("the rows ask for valid headers"))
}

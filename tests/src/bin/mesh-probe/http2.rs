//! HTTP/2 without TLS, as applications in a mesh speak it to their proxies: a client, and a server like gRPC's.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// Answers every request with its version and headers, one a line, and a trailer as gRPC has it.
pub(crate) async fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let mut text = format!("{:?}\n", request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)].map(Ok);
    let body = StreamBody::new(tokio_stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("a status and a header"))
}

/// Asks once and prints status, body and trailers.
pub(crate) async fn ask(url: &str) -> anyhow::Result<()> {
    let url: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let address = (url.host().context("a URL has a host")?, url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.context("connect")?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    print(&format!("{status}\n{text}trailers {trailers:?}\n"))
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

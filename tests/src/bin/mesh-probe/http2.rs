//! HTTP/2 without TLS, as applications in a mesh speak it to their proxies: a client, and a server like gRPC's.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers every request with its version and headers, one a line, and a trailer as gRPC has it; what is sent to `/talk`, with the
/// same.
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
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = BoxError>>, Infallible> {
    let answer = Response::builder().header("content-type", "application/grpc");
    if request.uri().path() == "/talk" {
        return Ok(answer.body(Either::Left(request.into_body())).expect("a status and a header"));
    }
    let mut text = format!("{:?}\n", request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let body = StreamBody::new(tokio_stream::iter(frames));
    Ok(answer.body(Either::Right(body)).expect("a status and a header"))
}

/// Says each line of the input on one stream, and prints what comes back; ends with the input, or when the stream does.
pub(crate) async fn talk(url: &str) -> anyhow::Result<()> {
    let (lines, body) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let (mut sender, request) = (connect(url).await?, request(url)?);
    let body = StreamBody::new(ReceiverStream::new(body));
    let response = sender.send_request(request.body(Either::Right(body))?).await?;
    anyhow::ensure!(response.status() == 200, "the answer is {}", response.status());
    let mut answer = response.into_body();
    while let Some(line) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.transpose()? {
        lines.send(Ok(Frame::data(format!("{line}\n").into()))).await.context("the stream has ended")?;
        let mut heard = String::new();
        while !heard.ends_with('\n') {
            let frame = answer.frame().await.context("the stream has ended")??;
            let data = frame.into_data().ok().context("the stream has ended")?;
            heard.push_str(&String::from_utf8_lossy(&data));
        }
        print(&heard)?;
    }
    Ok(())
}

type Sender = SendRequest<Either<Empty<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>>;

async fn connect(url: &str) -> anyhow::Result<Sender> {
    let url: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let address = (url.host().context("a URL has a host")?, url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.context("connect")?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(url: &str) -> anyhow::Result<http::request::Builder> {
    let url: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    Ok(Request::post(url).header("content-type", "application/grpc").header("te", "trailers"))
}

/// Asks once and prints status, body and trailers.
pub(crate) async fn ask(url: &str) -> anyhow::Result<()> {
    let (mut sender, request) = (connect(url).await?, request(url)?);
    let response = sender.send_request(request.body(Either::Left(Empty::new()))?).await?;
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

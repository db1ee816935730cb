//! A client that asks at a steady rate over kept connections and prints a line for each answer: when it came, its status and
//! its body's first line; `error` in place of a status when there was none.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// As few as a browser has.
const CONNECTIONS: u32 = 6;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `count` times; 0: until it is ended. `per_second`: 0 is as fast as it goes.
pub(crate) async fn run(url: &str, count: u64, per_second: u32) -> anyhow::Result<()> {
    let url: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let share = count / u64::from(CONNECTIONS) + u64::from(u64::from(number) < count % u64::from(CONNECTIONS));
        let url = url.clone();
        clients.spawn(async move { client(&url, (count > 0).then_some(share), per_second).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

async fn client(url: &Uri, count: Option<u64>, per_second: u32) -> anyhow::Result<()> {
    let pause = Duration::from_secs(1) * CONNECTIONS / per_second.max(1);
    let mut ticks = interval(pause);
    // A moment of a busy machine does not make the load less.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut connection = None;
    let mut asked = 0;
    while count.is_none_or(|count| asked < count) {
        if per_second > 0 {
            ticks.tick().await;
        }
        asked += 1;
        let answer = match tokio::time::timeout(PATIENCE, ask(url, &mut connection)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                connection = None;
                format!("error {error:#}")
            }
            Err(_) => {
                connection = None;
                "error no answer".to_owned()
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        // One write for each line, so that lines stay whole.
        std::io::stdout().write_all(format!("{now} {answer}\n").as_bytes())?;
    }
    Ok(())
}

async fn ask(url: &Uri, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> anyhow::Result<String> {
    // What the server has closed between two requests is no failure of either.
    if let Some(sender) = connection
        && sender.ready().await.is_err()
    {
        *connection = None;
    }
    let sender = match connection {
        Some(sender) => sender,
        None => connection.insert(connect(url).await?),
    };
    let authority = url.authority().context("a URL has a host")?.as_str();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("host", authority).body(Empty::new())?;
    let response = sender.send_request(request).await.context("send")?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.context("read the body")?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    Ok(format!("{status} {}", text.lines().next().unwrap_or_default()))
}

async fn connect(url: &Uri) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let address = (url.host().context("a URL has a host")?, url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("connect")?;
    tokio::spawn(connection);
    Ok(sender)
}

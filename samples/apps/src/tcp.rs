//! Servers below HTTP: a line echo with a prefix, and one that speaks first.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A line longer than this ends the connection.
const MAX_LINE: u64 = 64 << 10;

/// Answers each line with `prefix` and the line, on every listener.
pub(crate) async fn echo(listeners: Vec<TcpListener>, prefix: String) -> anyhow::Result<()> {
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let prefix = prefix.clone();
        accepting.spawn(accept(listener, move |stream| echo_lines(stream, prefix.clone())));
    }
    while accepting.join_next().await.is_some() {}
    Ok(())
}

/// Sends a greeting at once, as MySQL does, then echoes bytes.
pub(crate) async fn server_first(listener: TcpListener) -> anyhow::Result<()> {
    accept(listener, greet_and_echo).await;
    Ok(())
}

async fn accept<F, S>(listener: TcpListener, serve: S)
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream));
            }
            // Out of descriptors, most likely: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn echo_lines(stream: TcpStream, prefix: String) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::from(format!("{prefix} "));
        if (&mut reading).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        writing.write_all(&line).await?;
    }
}

async fn greet_and_echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"5.7.0-sample ready\n").await?;
    let (mut reading, mut writing) = stream.split();
    tokio::io::copy(&mut reading, &mut writing).await.map(|_| ())
}

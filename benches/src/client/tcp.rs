//! Plain TCP: messages to and fro, a stream of bytes, or a connection for each message.

use std::time::Instant;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Run;
use crate::message::{BULK_PERIOD, ECHO};

/// One message at a time on a connection that is kept.
pub(super) async fn echo(run: &Run) -> anyhow::Result<()> {
    let mut stream = crate::connect(run.to).await?;
    while let Some(due) = run.pace.next().await {
        exchange(&mut stream).await?;
        run.tally.answered(due);
    }
    Ok(())
}

/// A new connection for each message. One that fails is counted, and the next one tried.
pub(super) async fn connect(run: &Run) -> anyhow::Result<()> {
    while let Some(due) = run.pace.next().await {
        if let Err(error) = once(run, due).await {
            run.tally.wrong(1, format_args!("{error:#}"));
        }
    }
    Ok(())
}

/// One message on a new connection.
pub(super) async fn once(run: &Run, due: Instant) -> anyhow::Result<TcpStream> {
    let mut stream = crate::connect(run.to).await?;
    exchange(&mut stream).await?;
    run.tally.answered(due);
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; ECHO.len()];
    stream.write_all(ECHO).await?;
    stream.read_exact(&mut answer).await.context("no answer")?;
    if answer != *ECHO {
        bail!("an answer that is not what was sent");
    }
    Ok(())
}

/// Asks with one byte and reads for ever.
pub(super) async fn bulk(run: &Run) -> anyhow::Result<()> {
    let mut stream = crate::connect(run.to).await?;
    stream.write_all(b"x").await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut position = 0;
    while !run.pace.is_over() {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            bail!("the stream ended");
        }
        // The ends of each piece tell whether anything is missing or twice.
        for at in [0, length - 1] {
            if usize::from(buffer[at]) != (position + at) % BULK_PERIOD {
                bail!("byte {} of the stream is wrong", position + at);
            }
        }
        position += length;
        run.tally.received(length);
    }
    Ok(())
}

//! Plain TCP: what came goes back, or bytes without end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::message::BULK_PERIOD;

pub(super) async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

/// Begins at the first byte that comes, so that whoever only looks whether the port is open is not sent anything.
pub(super) async fn bulk(mut stream: TcpStream) -> anyhow::Result<()> {
    if stream.read(&mut [0; 1]).await? == 0 {
        return Ok(());
    }
    // A whole number of periods: each round goes on where the last one ended.
    let bytes: Vec<u8> = (0..BULK_PERIOD * 256).map(|at| (at % BULK_PERIOD) as u8).collect();
    loop {
        stream.write_all(&bytes).await?;
    }
}

//! A client of a protocol in which the server speaks first: it connects, keeps silent, and prints the greeting and how many
//! milliseconds it took. Then it speaks, and the echo must come back.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(address: &str, count: u32) -> anyhow::Result<()> {
    for _ in 0..count {
        let since = Instant::now();
        let greeting = timeout(PATIENCE, greet(address)).await.context("the server kept silent")??;
        let took = since.elapsed().as_millis();
        std::io::stdout().write_all(format!("{took} {greeting}\n").as_bytes())?;
    }
    Ok(())
}

async fn greet(address: &str) -> anyhow::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.context("connect")?);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.context("read the greeting")?;
    stream.write_all(b"hello, server\n").await.context("speak")?;
    let mut echo = String::new();
    stream.read_line(&mut echo).await.context("read the echo")?;
    ensure!(echo == "hello, server\n", "the echo is {echo:?} after {greeting:?}");
    Ok(greeting.trim_end().to_owned())
}

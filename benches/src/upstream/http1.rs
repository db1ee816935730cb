//! HTTP/1.1: requests without bodies, one answer.

use anyhow::bail;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::message::BODY;

const END: &[u8] = b"\r\n\r\n";

pub(super) async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", BODY.len());
    answer.push_str(std::str::from_utf8(BODY)?);
    let mut received = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some(end) = memchr::memmem::find(&received, END) {
            if !received.starts_with(b"GET ") {
                bail!("not a GET request: {:?}", String::from_utf8_lossy(&received[..end]));
            }
            received.advance(end + END.len());
            stream.write_all(answer.as_bytes()).await?;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

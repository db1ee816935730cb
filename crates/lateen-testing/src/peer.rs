//! A peer that follows a script: it sends exactly the bytes a test says, and reads what comes piece by piece. Everything it
//! waits for has a deadline.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::eventually::within;

/// One end of a TCP connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A response as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The head as it came, without the last empty line.
    pub head: String,
    pub body: String,
    /// Trailer fields as they came, each line with its end.
    pub trailers: String,
}

impl Response {
    /// The value of a header; names on the wire are in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// # Panics
    /// When nobody listens there.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::new(within("connecting", TcpStream::connect(to)).await.expect("somebody listens"))
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the other end is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the other end reads");
    }

    /// # Errors
    /// When the other end is gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the other end reads", self.stream.write_all(bytes.as_ref())).await
    }

    async fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let read = self.stream.read(&mut buffer).await?;
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    /// Reads through the next `marker` and returns what came up to its end.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn until(&mut self, marker: &str) -> String {
        let what = format!("{marker:?} comes");
        within(&what, async {
            loop {
                let found = self.received.windows(marker.len()).position(|window| window == marker.as_bytes());
                if let Some(at) = found {
                    return text(self.received.drain(..at + marker.len()).collect());
                }
                match self.more().await {
                    Ok(1..) => {}
                    end => panic!("{end:?} before {marker:?}, after {:?}", text(self.received.clone())),
                }
            }
        })
        .await
    }

    /// A message's head, without its last empty line.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn head(&mut self) -> String {
        let mut head = self.until("\r\n\r\n").await;
        head.truncate(head.len() - 4);
        head
    }

    /// Waits, for as long as it takes, for a request without a body and passes over it; false when the connection ends.
    pub async fn next_head(&mut self) -> bool {
        loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                self.received.drain(..at + 4);
                return true;
            }
            if !matches!(self.more().await, Ok(1..)) {
                return false;
            }
        }
    }

    /// Exactly so many bytes.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn take(&mut self, length: usize) -> String {
        within("enough bytes come", async {
            while self.received.len() < length {
                let read = self.more().await.expect("the connection holds");
                assert!(read > 0, "it ended after {} of {length} bytes", self.received.len());
            }
        })
        .await;
        text(self.received.drain(..length).collect())
    }

    /// The next final response, whole; interim ones are passed over.
    ///
    /// # Panics
    /// When the connection ends before, unless that is what ends the body.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// The next final response to a request by `method`.
    ///
    /// # Panics
    /// When the connection ends before, unless that is what ends the body.
    pub async fn response_to(&mut self, method: &str) -> Response {
        let head = self.final_head().await;
        let status = status(&head);
        let mut response = Response { status, head, body: String::new(), trailers: String::new() };
        let length = response.header("content-length").map(|length| length.parse().expect("a length is a number"));
        let chunked = response.header("transfer-encoding") == Some("chunked");
        match (method, status, length) {
            ("HEAD", ..) | (_, 101 | 204 | 304, _) => {}
            _ if chunked => (response.body, response.trailers) = self.chunked().await,
            (.., Some(length)) => response.body = self.take(length).await,
            (.., None) => response.body = self.end().await,
        }
        response
    }

    /// The head of the next final response.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn final_head(&mut self) -> String {
        loop {
            let head = self.head().await;
            if !(100..200).contains(&status(&head)) || status(&head) == 101 {
                return head;
            }
        }
    }

    /// A chunked body and its trailer section.
    ///
    /// # Panics
    /// When it is broken.
    pub async fn chunked(&mut self) -> (String, String) {
        let mut body = String::new();
        loop {
            let line = self.until("\r\n").await;
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            body.push_str(&self.take(size).await);
            assert_eq!(self.take(2).await, "\r\n");
        }
        let mut trailers = String::new();
        loop {
            let line = self.until("\r\n").await;
            if line == "\r\n" {
                return (body, trailers);
            }
            trailers.push_str(&line);
        }
    }

    /// Everything until the other end closes its direction.
    ///
    /// # Panics
    /// When it resets the connection instead.
    pub async fn end(&mut self) -> String {
        within("the other end closes", async { while self.more().await.expect("it ends without a reset") > 0 {} })
            .await;
        text(std::mem::take(&mut self.received))
    }

    /// Waits until the connection is over, by an end or a reset; returns what still came.
    pub async fn gone(&mut self) -> String {
        within("the connection is over", async { while matches!(self.more().await, Ok(1..)) {} }).await;
        text(std::mem::take(&mut self.received))
    }

    /// Ends this direction.
    ///
    /// # Panics
    /// When the connection is gone already.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Ends the connection by a reset.
    ///
    /// # Panics
    /// Never: any TCP socket takes the option.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a TCP socket can be told so");
    }

    /// The socket itself, with nothing read from it that the caller does not have.
    ///
    /// # Panics
    /// When bytes were received that nobody took.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.received.is_empty(), "nobody took {:?}", text(self.received));
        self.stream
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("scripts are text")
}

fn status(head: &str) -> u16 {
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status line: {head:?}"))
}

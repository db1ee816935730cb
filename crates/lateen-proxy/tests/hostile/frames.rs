//! HTTP/2 by hand: frames that no library would send, and what comes back.

use std::net::SocketAddr;

use lateen_testing::eventually::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const CALM: u32 = 0xb;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as a literal that is not kept, without Huffman: any bytes can be said.
pub(crate) fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name.as_ref(), value.as_ref()] {
        length(&mut block, text.len());
        block.extend_from_slice(text);
    }
    block
}

/// RFC 7541 section 5.1, with a prefix of seven bits.
fn length(block: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        block.push(u8::try_from(number).expect("it is small"));
        return;
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(u8::try_from(number % 128).expect("it is small") | 128);
        number /= 128;
    }
    block.push(u8::try_from(number).expect("it is small"));
}

/// The block of a request.
pub(crate) fn block(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = [field(":method", method), field(":scheme", "http"), field(":path", path)].concat();
    block.extend(field(":authority", "h"));
    for (name, value) in more {
        block.extend(field(name, value));
    }
    block
}

/// A whole request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block("GET", path, &[]))
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The first four bytes of the payload.
    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    /// The connection is over, without a word.
    Closed,
}

/// A client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects, and says what comes first: the preface and empty settings.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(to)).await.expect("somebody listens");
        let mut client = Self { stream, received: Vec::new() };
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(frame(SETTINGS, 0, 0, &[])).await;
        client
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the proxy reads");
    }

    /// The next frame; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within("a frame comes, or the end", async {
            loop {
                if let Some(frame) = self.take() {
                    return Some(frame);
                }
                if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                    return None;
                }
            }
        })
        .await
    }

    fn take(&mut self) -> Option<Frame> {
        let [a, b, c, kind, flags, id @ ..] = *self.received.first_chunk::<9>()?;
        let end = 9 + usize::from(a) * 65536 + usize::from(b) * 256 + usize::from(c);
        let payload = self.received.get(9..end)?.to_vec();
        self.received.drain(..end);
        Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
    }

    /// What becomes of a stream: its status, or how it or the connection was ended.
    pub(crate) async fn fate(&mut self, stream: u32) -> Fate {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return Fate::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Fate::Reset(frame.word(0)),
                GOAWAY => return Fate::GoAway(frame.word(4)),
                _ => {}
            }
        }
        Fate::Closed
    }

    /// Sends all of it, reading meanwhile, until the proxy has had enough; how it said so.
    pub(crate) async fn flood(mut self, bytes: &[u8]) -> Fate {
        let (mut reader, mut writer) = self.stream.split();
        let mut rest = bytes;
        within("the connection is over", async {
            loop {
                tokio::select! {
                    read = reader.read_buf(&mut self.received) => if !matches!(read, Ok(1..)) { return },
                    written = writer.write(rest), if !rest.is_empty() => match written {
                        Ok(written) => rest = &rest[written..],
                        // What it said is to be read all the same.
                        Err(_) => rest = &[],
                    },
                }
            }
        })
        .await;
        let mut fate = Fate::Closed;
        while let Some(frame) = self.take() {
            if frame.kind == GOAWAY {
                fate = Fate::GoAway(frame.word(4));
            }
        }
        fate
    }
}

/// The status in a block that begins with it, from an encoder whose table is empty (RFC 7541 appendix A).
pub(crate) fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [byte @ 0x88..=0x8e, ..] => INDEXED[usize::from(byte - 0x88)],
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => {
            let digits = std::str::from_utf8(&digits[..3]).expect("they are ASCII");
            digits.parse().expect("they are digits")
        }
        other => panic!("no status: {other:?}"),
    }
}

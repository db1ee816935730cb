//! HTTP/2 with prior knowledge: a page for each request, or the answer to each unary gRPC call.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2::{Encoder, Frame, Kind, MAX_WINDOW, PREFACE, begin, flags, put, put_window_update, take};
use crate::message::{BODY, GRPC};

pub(super) struct Connection {
    stream: TcpStream,
    grpc: bool,
    out: Vec<u8>,
    encoder: Encoder,
    /// How many bytes of DATA the other side takes yet, on the connection.
    window: i64,
    /// Bytes of DATA received since the window was last opened.
    consumed: u32,
    /// Bytes of each request's body that came so far.
    bodies: HashMap<u32, usize>,
    /// Answers that the window has no room for.
    waiting: VecDeque<u32>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, grpc: bool) -> Self {
        Self {
            stream,
            grpc,
            out: Vec::new(),
            encoder: Encoder::default(),
            window: 65_535,
            consumed: 0,
            bodies: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    pub(super) async fn serve(mut self) -> anyhow::Result<()> {
        let mut received = BytesMut::with_capacity(64 * 1024);
        begin(&mut self.out);
        while received.len() < PREFACE.len() {
            if self.stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
        if !received.starts_with(PREFACE) {
            bail!("no HTTP/2 preface");
        }
        received.advance(PREFACE.len());
        loop {
            let mut done = 0;
            while let Some((frame, length)) = take(&received[done..])? {
                done += length;
                self.handle(&frame)?;
            }
            received.advance(done);
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            if self.stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        match frame.kind {
            Kind::Headers if frame.ends_stream() => self.ended(frame.stream, 0)?,
            Kind::Headers => {
                self.bodies.insert(frame.stream, 0);
            }
            Kind::Data => {
                self.consumed += frame.length as u32;
                if self.consumed > MAX_WINDOW / 2 {
                    put_window_update(&mut self.out, std::mem::take(&mut self.consumed));
                }
                let body = self.bodies.get_mut(&frame.stream).context("DATA without HEADERS")?;
                *body += frame.payload.len();
                if frame.ends_stream() {
                    let body = self.bodies.remove(&frame.stream).unwrap_or_default();
                    self.ended(frame.stream, body)?;
                }
            }
            Kind::Settings if !frame.is_ack() => {
                for (identifier, value) in frame.settings() {
                    // Header table and stream window (RFC 9113, 6.5.2): an answer must fit, without looking.
                    if (identifier == 1 && value < 4096) || (identifier == 4 && (value as usize) < BODY.len()) {
                        bail!("setting {identifier} is {value}");
                    }
                }
                put(&mut self.out, Kind::Settings, flags::ACK, 0, &[]);
            }
            Kind::Ping if !frame.is_ack() => put(&mut self.out, Kind::Ping, flags::ACK, 0, frame.payload),
            Kind::WindowUpdate if frame.stream == 0 => {
                self.window += i64::from(frame.number(0)?);
                while let Some(&stream) = self.waiting.front()
                    && self.has_room()
                {
                    self.waiting.pop_front();
                    self.answer(stream);
                }
            }
            Kind::Reset => {
                self.bodies.remove(&frame.stream);
            }
            Kind::GoAway | Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Other => {}
        }
        Ok(())
    }

    /// A request is complete, with a body of so many bytes.
    fn ended(&mut self, stream: u32, body: usize) -> anyhow::Result<()> {
        let expected = if self.grpc { GRPC.len() } else { 0 };
        if body != expected {
            bail!("a request with a body of {body} bytes instead of {expected}");
        }
        if self.waiting.is_empty() && self.has_room() {
            self.answer(stream);
        } else {
            self.waiting.push_back(stream);
        }
        Ok(())
    }

    fn body(&self) -> &'static [u8] {
        if self.grpc { GRPC } else { BODY }
    }

    fn has_room(&self) -> bool {
        self.window >= self.body().len() as i64
    }

    fn answer(&mut self, stream: u32) {
        let body = self.body();
        self.window -= body.len() as i64;
        // `:status: 200` is entry 8 of the static table.
        let mut headers = vec![0x88];
        if self.grpc {
            self.encoder.put(&mut headers, "content-type", "application/grpc");
            put(&mut self.out, Kind::Headers, flags::END_HEADERS, stream, &headers);
            put(&mut self.out, Kind::Data, 0, stream, body);
            headers.clear();
            self.encoder.put(&mut headers, "grpc-status", "0");
            put(&mut self.out, Kind::Headers, flags::END_HEADERS | flags::END_STREAM, stream, &headers);
        } else {
            self.encoder.put(&mut headers, "content-type", "text/plain");
            self.encoder.put(&mut headers, "content-length", "1024");
            put(&mut self.out, Kind::Headers, flags::END_HEADERS, stream, &headers);
            put(&mut self.out, Kind::Data, flags::END_STREAM, stream, body);
        }
    }
}

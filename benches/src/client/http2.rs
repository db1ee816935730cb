//! HTTP/2 with prior knowledge: several requests at once on a connection, as pages or as unary gRPC calls.

use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Run;
use crate::connect;
use crate::http2::{Encoder, Frame, Kind, MAX_WINDOW, PREFACE, Reader, begin, flags, put, put_window_update, take};
use crate::message::{BODY, GRPC};
use crate::tally::Tally;

pub(super) async fn drive(run: &Run, streams: usize, grpc: bool) -> anyhow::Result<()> {
    let mut connection = Connection::new(connect(run.to).await?, streams, grpc);
    if let Err(error) = connection.drive(run).await {
        // With it go all that were open on the connection.
        run.tally.wrong(connection.open.len().max(1), format_args!("{error:#}"));
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    grpc: bool,
    /// How many requests may be open at once.
    streams: usize,
    out: Vec<u8>,
    encoder: Encoder,
    reader: Reader,
    /// The number of the next stream.
    next: u32,
    open: Vec<Call>,
    /// How many bytes of DATA the other side takes yet, on the connection.
    window: i64,
    /// Bytes of DATA received since the window was last opened.
    consumed: u32,
}

/// A request that waits for its answer.
struct Call {
    stream: u32,
    due: Instant,
    status: Option<bool>,
    grpc_status: Option<bool>,
    /// Bytes of the body so far, all as expected.
    body: usize,
}

impl Connection {
    fn new(stream: TcpStream, streams: usize, grpc: bool) -> Self {
        let mut out = PREFACE.to_vec();
        begin(&mut out);
        Self {
            stream,
            grpc,
            streams,
            out,
            encoder: Encoder::default(),
            reader: Reader::default(),
            next: 1,
            open: Vec::with_capacity(streams),
            window: 65_535,
            consumed: 0,
        }
    }

    async fn drive(&mut self, run: &Run) -> anyhow::Result<()> {
        let mut received = BytesMut::with_capacity(64 * 1024);
        loop {
            while self.has_room()
                && let Some(due) = run.pace.take()
            {
                self.send(due);
            }
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            if run.pace.is_over() && self.open.is_empty() {
                return Ok(());
            }
            tokio::select! {
                length = self.stream.read_buf(&mut received) => if length? == 0 {
                    bail!("the connection was closed");
                },
                due = run.pace.next(), if self.has_room() && !run.pace.is_over() => match due {
                    Some(due) => self.send(due),
                    None => continue,
                },
            }
            let mut done = 0;
            while let Some((frame, length)) = take(&received[done..])? {
                done += length;
                self.handle(&frame, &run.tally)?;
            }
            received.advance(done);
        }
    }

    fn has_room(&self) -> bool {
        self.open.len() < self.streams && (!self.grpc || self.window >= GRPC.len() as i64)
    }

    fn send(&mut self, due: Instant) {
        let stream = self.next;
        self.next += 2;
        self.open.push(Call { stream, due, status: None, grpc_status: None, body: 0 });
        // `:scheme: http`, and `:method` GET or POST, of the static table.
        let mut headers = vec![0x86, if self.grpc { 0x83 } else { 0x82 }];
        self.encoder.put(&mut headers, ":path", if self.grpc { "/bench.Echo/Call" } else { "/bench" });
        self.encoder.put(&mut headers, ":authority", "bench.default.svc.cluster.local");
        self.encoder.put(&mut headers, "user-agent", "lateen-load");
        if !self.grpc {
            self.encoder.put(&mut headers, "accept", "*/*");
            put(&mut self.out, Kind::Headers, flags::END_HEADERS | flags::END_STREAM, stream, &headers);
            return;
        }
        self.encoder.put(&mut headers, "content-type", "application/grpc");
        self.encoder.put(&mut headers, "te", "trailers");
        put(&mut self.out, Kind::Headers, flags::END_HEADERS, stream, &headers);
        put(&mut self.out, Kind::Data, flags::END_STREAM, stream, GRPC);
        self.window -= GRPC.len() as i64;
    }

    fn handle(&mut self, frame: &Frame<'_>, tally: &Tally) -> anyhow::Result<()> {
        match frame.kind {
            Kind::Headers => {
                // Read even where nobody waits for it: the table is the connection's.
                let verdict = self.reader.read(frame.payload)?;
                let call = self.call(frame.stream)?;
                call.status = call.status.or(verdict.status);
                call.grpc_status = call.grpc_status.or(verdict.grpc_status);
            }
            Kind::Data => {
                self.consumed += frame.length as u32;
                if self.consumed > MAX_WINDOW / 2 {
                    put_window_update(&mut self.out, std::mem::take(&mut self.consumed));
                }
                let expected: &[u8] = if self.grpc { GRPC } else { BODY };
                let call = self.call(frame.stream)?;
                if !expected[call.body..].starts_with(frame.payload) {
                    bail!("a body that is not what the upstream sent");
                }
                call.body += frame.payload.len();
            }
            Kind::Settings if !frame.is_ack() => self.settings(frame)?,
            Kind::Ping if !frame.is_ack() => put(&mut self.out, Kind::Ping, flags::ACK, 0, frame.payload),
            Kind::WindowUpdate if frame.stream == 0 => self.window += i64::from(frame.number(0)?),
            Kind::Reset => bail!("a request was reset with error {}", frame.number(0)?),
            Kind::GoAway => bail!("the other side goes away with error {}", frame.number(4)?),
            Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Other => {}
        }
        if matches!(frame.kind, Kind::Headers | Kind::Data) && frame.ends_stream() {
            self.ended(frame.stream, tally)?;
        }
        Ok(())
    }

    fn call(&mut self, stream: u32) -> anyhow::Result<&mut Call> {
        self.open.iter_mut().find(|call| call.stream == stream).context("a frame on a stream that is not open")
    }

    fn settings(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        for (identifier, value) in frame.settings() {
            // Header table, concurrent streams, stream window (RFC 9113, 6.5.2).
            let least = match identifier {
                1 => 4096,
                3 => self.streams,
                4 => GRPC.len(),
                _ => 0,
            };
            if (value as usize) < least {
                bail!("setting {identifier} is {value}, less than {least}");
            }
        }
        put(&mut self.out, Kind::Settings, flags::ACK, 0, &[]);
        Ok(())
    }

    fn ended(&mut self, stream: u32, tally: &Tally) -> anyhow::Result<()> {
        let at = self.open.iter().position(|call| call.stream == stream).context("an answer that nobody waits for")?;
        let call = self.open.swap_remove(at);
        let (expected, grpc_status) = if self.grpc { (GRPC.len(), Some(true)) } else { (BODY.len(), None) };
        if (call.status, call.grpc_status, call.body) == (Some(true), grpc_status, expected) {
            tally.answered(call.due);
        } else {
            let (status, grpc) = (call.status, call.grpc_status);
            tally.wrong(1, format_args!("an answer of {} bytes; success: {status:?}, of gRPC: {grpc:?}", call.body));
        }
        Ok(())
    }
}

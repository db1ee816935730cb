//! Access log lines: formats filled in from a record, and files written by a thread of their own, so that a slow disk
//! stalls no worker. A full queue drops lines and counts them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use lateen_engine::config::access_log::{AccessLog, Format, JsonValue};
use lateen_engine::message::Headers;
use lateen_engine::route::format::{Field, Operator};

use super::stats::Counter;
use super::stream_info::StreamInfo;

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

enum Order {
    Line(Arc<str>, Vec<u8>),
    /// Everything before is written when the sender is dropped.
    Flush(SyncSender<()>),
}

/// The writing thread's inbox.
#[derive(Clone)]
pub(crate) struct AccessLogs {
    orders: SyncSender<Order>,
    dropped: Counter,
    paths: Arc<Mutex<HashMap<String, Arc<str>>>>,
}

impl std::fmt::Debug for AccessLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessLogs")
    }
}

impl AccessLogs {
    /// Starts the writing thread; it ends when the last handle goes.
    pub(crate) fn start(dropped: Counter) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(&inbox))?;
        Ok(Self { orders, dropped, paths: Arc::default() })
    }

    /// Writes a line to each log.
    pub(crate) fn log(&self, logs: &[AccessLog], info: &StreamInfo) {
        for log in logs {
            let mut line = Vec::with_capacity(512);
            fill(&log.format, info, &mut line);
            if self.orders.try_send(Order::Line(self.path(&log.path), line)).is_err() {
                self.dropped.inc();
            }
        }
    }

    fn path(&self, path: &str) -> Arc<str> {
        let mut paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = paths.get(path) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = path.into();
        paths.insert(path.to_owned(), Arc::clone(&shared));
        shared
    }

    /// Blocks until everything logged so far is written.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.orders.send(Order::Flush(done)).is_ok() {
            // An error means that the thread is gone, and with it the lines.
            let _ = wait.recv();
        }
    }
}

fn write(inbox: &Receiver<Order>) {
    let mut files: HashMap<Arc<str>, Option<Box<dyn Write>>> = HashMap::new();
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Line(path, line) => {
                let file = files.entry(Arc::clone(&path)).or_insert_with(|| open(&path));
                if let Some(file) = file
                    && let Err(error) = file.write_all(&line)
                {
                    tracing::warn!(path = %path, %error, "access log cannot be written");
                }
            }
            Order::Flush(done) => drop(done),
        }
    }
}

fn open(path: &str) -> Option<Box<dyn Write>> {
    match path {
        "/dev/stdout" => return Some(Box::new(std::io::stdout())),
        "/dev/stderr" => return Some(Box::new(std::io::stderr())),
        _ => {}
    }
    match std::fs::OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Some(Box::new(file)),
        Err(error) => {
            tracing::error!(path, %error, "access log cannot be opened");
            None
        }
    }
}

/// Fills a format in.
pub(crate) fn fill(format: &Format, info: &StreamInfo, line: &mut Vec<u8>) {
    match format {
        Format::Text(format) => format.write(line, |operator, line| value(operator, info, line)),
        Format::Json(fields) => {
            json_object(fields, info, line);
            line.push(b'\n');
        }
    }
}

fn json_object(fields: &[(String, JsonValue)], info: &StreamInfo, line: &mut Vec<u8>) {
    line.push(b'{');
    for (number, (name, value)) in fields.iter().enumerate() {
        if number > 0 {
            line.push(b',');
        }
        json_string(name, line);
        line.push(b':');
        json_value(value, info, line);
    }
    line.push(b'}');
}

fn json_value(json: &JsonValue, info: &StreamInfo, line: &mut Vec<u8>) {
    match json {
        JsonValue::Null => line.extend_from_slice(b"null"),
        JsonValue::Bool(value) => line.extend_from_slice(if *value { b"true" } else { b"false" }),
        JsonValue::Number(value) => line.extend_from_slice(value.to_string().as_bytes()),
        JsonValue::Object(fields) => json_object(fields, info, line),
        JsonValue::List(values) => {
            line.push(b'[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    line.push(b',');
                }
                json_value(value, info, line);
            }
            line.push(b']');
        }
        JsonValue::Text(format) => {
            let mut text = Vec::new();
            format.write(&mut text, |operator, text| value(operator, info, text));
            // A lone operator keeps its type: numbers stay numbers, what is not there is null.
            let lone = matches!(format.0.as_slice(), [lateen_engine::route::format::Piece::Operator(_)]);
            if lone && text == b"-" {
                line.extend_from_slice(b"null");
            } else if lone && !text.is_empty() && text.len() < 16 && text.iter().all(u8::is_ascii_digit) {
                line.extend_from_slice(&text);
            } else {
                json_string(&String::from_utf8_lossy(&text), line);
            }
        }
    }
}

fn json_string(text: &str, line: &mut Vec<u8>) {
    // Serialising a string into memory does not fail.
    let _ = serde_json::to_writer(line, text);
}

/// Appends what an operator stands for; `-` for what is not there.
pub(crate) fn value(operator: &Operator, info: &StreamInfo, line: &mut Vec<u8>) {
    let connection = &info.connection;
    let peer = connection.tls.as_ref();
    match operator {
        Operator::StartTime(format) => line.extend_from_slice(time(info, format.as_deref()).as_bytes()),
        Operator::Request(first, second, limit) => request(info, [Some(first), second.as_ref()], *limit, line),
        Operator::RequestWithoutQuery(first, second, limit) => {
            let start = line.len();
            request(info, [Some(first), second.as_ref()], *limit, line);
            if let Some(query) = line[start..].iter().position(|byte| *byte == b'?') {
                line.truncate(start + query);
            }
        }
        Operator::Response(first, second, limit) => {
            header(&info.response_headers, first, second.as_ref(), *limit, line)
        }
        Operator::Trailer(first, second, limit) => header(&info.trailers, first, second.as_ref(), *limit, line),
        Operator::Protocol => text(info.protocol.map(|version| version.as_str()), line),
        Operator::ResponseCode => number(u64::from(info.status), line),
        // What came from upstream came with a status: without one there was no answer to speak of.
        Operator::ResponseCodeDetails => {
            text(Some(&*info.details).filter(|details| info.status != 0 || *details != "via_upstream"), line)
        }
        Operator::ResponseFlags => display(&info.flags, line),
        Operator::ConnectionTerminationDetails => text(info.termination, line),
        Operator::UpstreamTransportFailureReason => text(info.upstream_failure.as_deref(), line),
        Operator::BytesReceived => number(info.received, line),
        Operator::BytesSent => number(info.sent, line),
        Operator::Duration => number(millis(info.duration), line),
        Operator::RequestDuration | Operator::RequestTxDuration => text(None, line),
        Operator::ResponseDuration => match info.response_start {
            Some(start) => number(millis(start), line),
            None => text(None, line),
        },
        Operator::ResponseTxDuration => match info.response_start {
            Some(start) => number(millis(info.duration.saturating_sub(start)), line),
            None => text(None, line),
        },
        Operator::UpstreamHost | Operator::UpstreamRemoteAddress | Operator::UpstreamHostName => {
            text(info.upstream_host.as_deref(), line);
        }
        Operator::UpstreamCluster => text(info.cluster.as_deref(), line),
        Operator::UpstreamLocalAddress => text(info.upstream_local.map(|address| address.to_string()).as_deref(), line),
        Operator::UpstreamRequestAttemptCount => number(u64::from(info.attempts), line),
        Operator::UpstreamPeerUriSan | Operator::VirtualClusterName | Operator::UpstreamProtocol => text(None, line),
        Operator::DownstreamLocalAddress => display(&connection.local, line),
        Operator::DownstreamLocalAddressWithoutPort => display(&connection.local.ip(), line),
        Operator::DownstreamLocalPort => number(u64::from(connection.local.port()), line),
        Operator::DownstreamRemoteAddress => display(&connection.remote, line),
        Operator::DownstreamRemoteAddressWithoutPort => display(&connection.remote.ip(), line),
        Operator::DownstreamRemotePort => number(u64::from(connection.remote.port()), line),
        Operator::DownstreamDirectRemoteAddress => display(&connection.direct_remote, line),
        Operator::DownstreamDirectRemoteAddressWithoutPort => display(&connection.direct_remote.ip(), line),
        Operator::DownstreamPeerUriSan => text(peer.map(|peer| peer.names.uri_sans.join(",")).as_deref(), line),
        Operator::DownstreamPeerSubject => text(peer.map(|peer| peer.names.subject.as_str()), line),
        Operator::DownstreamTlsVersion => text(peer.map(|peer| peer.version), line),
        Operator::DownstreamTlsCipher => text(peer.map(|peer| peer.cipher.as_str()), line),
        Operator::RequestedServerName => text(connection.sni.as_deref(), line),
        Operator::RouteName => text(info.route.as_deref().filter(|name| !name.is_empty()), line),
        Operator::GrpcStatus => header(&info.trailers, &GRPC_STATUS, None, None, line),
        Operator::Hostname => text(connection.hostname.as_deref(), line),
        Operator::Environment(name) => text(connection.environment(name).as_deref(), line),
        Operator::ConnectionId => number(connection.id, line),
        Operator::StreamId => text(info.request_headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()), line),
        Operator::FilterChainName => text(Some(&*connection.chain).filter(|name| !name.is_empty()), line),
    }
}

static GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
static REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: Option<&str>, line: &mut Vec<u8>) {
    line.extend_from_slice(value.filter(|value| !value.is_empty()).unwrap_or("-").as_bytes());
}

fn number(value: u64, line: &mut Vec<u8>) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn display(value: &dyn std::fmt::Display, line: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(line, "{value}");
}

/// ISO 8601 with milliseconds, as Envoy writes it; a strftime format where one is given.
fn time(info: &StreamInfo, format: Option<&str>) -> String {
    let Ok(timestamp) = jiff::Timestamp::try_from(info.start_time) else { return "-".to_owned() };
    timestamp.strftime(format.unwrap_or("%Y-%m-%dT%H:%M:%S.%3fZ")).to_string()
}

fn request(info: &StreamInfo, fields: [Option<&Field>; 2], limit: Option<usize>, line: &mut Vec<u8>) {
    for field in fields.into_iter().flatten() {
        let value: Option<&[u8]> = match field {
            Field::Method => info.method.as_ref().map(|method| method.as_str().as_bytes()),
            Field::Path => Some(&info.path[..]),
            Field::Authority => Some(&info.authority[..]),
            Field::Scheme => Some(if info.connection.tls.is_some() { b"https" } else { b"http" }),
            Field::Header(name) if name.as_str() == "x-envoy-original-path" => info.original_path.as_deref(),
            Field::Header(name) => info.request_headers.get(name).map(http::HeaderValue::as_bytes),
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]);
            return;
        }
    }
    line.push(b'-');
}

fn header(
    headers: &Headers,
    first: &http::HeaderName,
    second: Option<&http::HeaderName>,
    limit: Option<usize>,
    line: &mut Vec<u8>,
) {
    let value = headers.get(first).or_else(|| second.and_then(|name| headers.get(name)));
    match value.map(http::HeaderValue::as_bytes) {
        Some(value) => line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]),
        None => line.push(b'-'),
    }
}

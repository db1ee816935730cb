//! What the operators of formats stand for, read from a request's record.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use lateen_cel::Program;
use lateen_engine::config::Value;
use lateen_engine::config::access_log::{Format, JsonValue};
use lateen_engine::message::{Headers, is_grpc};
use lateen_engine::route::format::{self, Field, GrpcNames, Operator, Piece};

use super::stream_info::StreamInfo;
use super::trace::Context;

/// Fills a log's format in.
pub(crate) fn fill(format: &Format, info: &StreamInfo, line: &mut Vec<u8>) {
    match format {
        Format::Text { format, omits_empty: false } => {
            format.write(line, |operator, line| value(operator, info, line));
        }
        Format::Text { format, omits_empty: true } => format.write(line, |operator, line| {
            append(operator, info, line);
        }),
        Format::Json { fields, omits_empty } => {
            Json { info, omits_empty: *omits_empty }.object(fields, line);
            line.push(b'\n');
        }
    }
}

/// A line of JSON in the making.
struct Json<'a> {
    info: &'a StreamInfo,
    omits_empty: bool,
}

impl Json<'_> {
    /// False if there is nothing in it.
    fn object(&self, fields: &[(String, JsonValue)], line: &mut Vec<u8>) -> bool {
        line.push(b'{');
        let start = line.len();
        for (name, value) in fields {
            let before = line.len();
            if before > start {
                line.push(b',');
            }
            json_string(name, line);
            line.push(b':');
            if !self.value(value, line) {
                line.truncate(before);
            }
        }
        let is_empty = line.len() == start;
        line.push(b'}');
        !is_empty
    }

    /// False if there is nothing, where that is left out.
    fn value(&self, json: &JsonValue, line: &mut Vec<u8>) -> bool {
        match json {
            JsonValue::Null => line.extend_from_slice(b"null"),
            JsonValue::Bool(value) => line.extend_from_slice(if *value { b"true" } else { b"false" }),
            JsonValue::Number(value) => line.extend_from_slice(value.to_string().as_bytes()),
            JsonValue::Object(fields) => return self.object(fields, line) || !self.omits_empty,
            JsonValue::List(values) => {
                line.push(b'[');
                let start = line.len();
                for value in values {
                    let before = line.len();
                    if before > start {
                        line.push(b',');
                    }
                    if !self.value(value, line) {
                        line.truncate(before);
                    }
                }
                line.push(b']');
            }
            JsonValue::Text(format) => return self.text(format, line),
        }
        true
    }

    /// A lone operator keeps its type: numbers stay numbers, what is not there is null.
    fn text(&self, format: &format::Format, line: &mut Vec<u8>) -> bool {
        let mut text = Vec::new();
        if let [Piece::Operator(operator)] = format.0.as_slice() {
            if !append(operator, self.info, &mut text) {
                line.extend_from_slice(b"null");
                return !self.omits_empty;
            }
            if is_number(operator) || is_json(operator, self.info) {
                line.extend_from_slice(&text);
                return true;
            }
        } else {
            format.write(&mut text, |operator, text| {
                if !append(operator, self.info, text) && !self.omits_empty {
                    text.push(b'-');
                }
            });
        }
        json_string(&String::from_utf8_lossy(&text), line);
        true
    }
}

fn json_string(text: &str, line: &mut Vec<u8>) {
    // Serialising a string into memory does not fail.
    let _ = serde_json::to_writer(line, text);
}

/// What Envoy keeps as a number.
fn is_number(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::ResponseCode
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::Duration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::UpstreamRequestAttemptCount
            | Operator::DownstreamLocalPort
            | Operator::DownstreamRemotePort
            | Operator::ConnectionId
            | Operator::UpstreamLocalPort
            | Operator::UpstreamRemotePort
            | Operator::DownstreamDirectRemotePort
            | Operator::GrpcStatus(GrpcNames::Number)
    )
}

/// What is JSON already, and whole.
fn is_json(operator: &Operator, info: &StreamInfo) -> bool {
    let Operator::DynamicMetadata(filter, path, None) = operator else { return false };
    path.is_empty() || !matches!(info.metadata.at(filter, path), Some(Value::String(_)))
}

/// The number that an operator stands for, if it does for one.
#[expect(clippy::cast_precision_loss, reason = "nobody counts bytes by 2^53")]
pub(crate) fn amount(operator: &Operator, info: &StreamInfo) -> Option<f64> {
    match operator {
        Operator::BytesReceived => Some(info.received as f64),
        Operator::BytesSent => Some(info.sent as f64),
        Operator::Duration => Some(millis(info.duration) as f64),
        _ => {
            let mut text = Vec::new();
            let found = append(operator, info, &mut text);
            let amount: f64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
            (found && amount.is_finite() && amount >= 0.0).then_some(amount)
        }
    }
}

/// Appends what an operator stands for; `-` for what is not there.
pub(crate) fn value(operator: &Operator, info: &StreamInfo, line: &mut Vec<u8>) {
    if !append(operator, info, line) {
        line.push(b'-');
    }
}

/// Appends what an operator stands for, if it is there.
pub(crate) fn append(operator: &Operator, info: &StreamInfo, line: &mut Vec<u8>) -> bool {
    let connection = &info.connection;
    let peer = connection.tls.as_ref();
    match operator {
        Operator::StartTime(None) => start_time(info.start_time, line),
        Operator::StartTime(Some(format)) => formatted_time(info.start_time, format, line),
        Operator::Request(first, second, limit) => request(info, [Some(first), second.as_ref()], *limit, line),
        Operator::RequestWithoutQuery(first, second, limit) => {
            let start = line.len();
            let found = request(info, [Some(first), second.as_ref()], *limit, line);
            if let Some(query) = memchr::memchr(b'?', &line[start..]) {
                line.truncate(start + query);
            }
            found
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
        // No flag is a hyphen of its own, not a gap.
        Operator::ResponseFlags if info.flags.is_empty() => text(Some("-"), line),
        Operator::ResponseFlags => display(&info.flags, line),
        Operator::ResponseFlagsLong if info.flags.is_empty() => text(Some("-"), line),
        Operator::ResponseFlagsLong => {
            let names: Vec<&str> = info.flags.iter().map(|flag| flag.as_long_str()).collect();
            text(Some(&names.join(",")), line)
        }
        Operator::ConnectionTerminationDetails => text(info.termination, line),
        // One word, as in Envoy, so that lines fall apart at blanks.
        Operator::UpstreamTransportFailureReason => {
            text(info.upstream_failure.as_ref().map(|reason| reason.replace(' ', "_")).as_deref(), line)
        }
        Operator::BytesReceived => number(info.received, line),
        Operator::BytesSent => number(info.sent, line),
        Operator::Duration => number(millis(info.duration), line),
        Operator::RequestDuration | Operator::RequestTxDuration => false,
        Operator::ResponseDuration => info.response_start.is_some_and(|start| number(millis(start), line)),
        Operator::ResponseTxDuration => {
            info.response_start.is_some_and(|start| number(millis(info.duration.saturating_sub(start)), line))
        }
        Operator::UpstreamHost | Operator::UpstreamHostName => text(info.upstream_host.as_deref(), line),
        Operator::UpstreamRemoteAddress => {
            text(info.upstream_host.as_deref().filter(|_| info.upstream_local.is_some()), line)
        }
        Operator::UpstreamCluster => text(info.cluster.as_deref(), line),
        Operator::UpstreamLocalAddress => info.upstream_local.is_some_and(|at| address(at, line)),
        Operator::UpstreamLocalAddressWithoutPort => info.upstream_local.is_some_and(|at| ip(at.ip(), line)),
        Operator::UpstreamLocalPort => info.upstream_local.is_some_and(|at| number(at.port().into(), line)),
        Operator::UpstreamRemoteAddressWithoutPort => upstream(info).is_some_and(|at| ip(at.ip(), line)),
        Operator::UpstreamRemotePort => upstream(info).is_some_and(|at| number(at.port().into(), line)),
        Operator::UpstreamRequestAttemptCount => number(u64::from(info.attempts), line),
        Operator::UpstreamProtocol => text(info.upstream_protocol.map(|version| version.as_str()), line),
        Operator::UpstreamPeerUriSan => text(info.upstream_tls.as_ref().map(|tls| &*tls.peer_uri), line),
        Operator::VirtualClusterName => false,
        Operator::DownstreamLocalAddress => text(Some(connection.local_text()), line),
        Operator::DownstreamLocalAddressWithoutPort => ip(connection.local.ip(), line),
        Operator::DownstreamLocalPort => number(u64::from(connection.local.port()), line),
        Operator::DownstreamRemoteAddress => text(Some(connection.remote_text()), line),
        Operator::DownstreamRemoteAddressWithoutPort => ip(connection.remote.ip(), line),
        Operator::DownstreamRemotePort => number(u64::from(connection.remote.port()), line),
        Operator::DownstreamDirectRemoteAddress => address(connection.direct_remote, line),
        Operator::DownstreamDirectRemoteAddressWithoutPort => ip(connection.direct_remote.ip(), line),
        Operator::DownstreamDirectRemotePort => number(u64::from(connection.direct_remote.port()), line),
        Operator::DownstreamPeerDnsSan => peer.is_some_and(|peer| list(&peer.names.dns_sans, line)),
        Operator::DownstreamPeerFingerprint256 => {
            let peer = peer.filter(|peer| peer.has_certificate);
            text(peer.map(|peer| peer.certificate_hash.as_str()), line)
        }
        Operator::DownstreamLocalUriSan => peer.is_some_and(|peer| list(&peer.local.uri_sans, line)),
        Operator::DownstreamPeerUriSan => peer.is_some_and(|peer| list(&peer.names.uri_sans, line)),
        Operator::DownstreamPeerSubject => text(peer.map(|peer| peer.names.subject.as_str()), line),
        Operator::DownstreamTlsVersion => text(peer.map(|peer| peer.version), line),
        Operator::DownstreamTlsCipher => text(peer.map(|peer| peer.cipher.as_str()), line),
        Operator::RequestedServerName => text(connection.sni.as_deref(), line),
        Operator::RouteName => text(info.route.as_deref(), line),
        Operator::GrpcStatus(names) => grpc_status(info).is_some_and(|code| grpc_name(code, *names, line)),
        Operator::TraceId => context(info).is_some_and(|context| display(&context.trace, line)),
        Operator::SpanId => context(info).is_some_and(|context| display(&format_args!("{:016x}", context.span), line)),
        Operator::QueryParam(name, limit) => query_param(info, name, *limit, line),
        Operator::Hostname => text(connection.hostname.as_deref(), line),
        Operator::Environment(name) => text(connection.environment(name).as_deref(), line),
        Operator::ConnectionId => number(connection.id, line),
        Operator::StreamId => text(info.request_headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()), line),
        Operator::FilterChainName => text(Some(&*connection.chain), line),
        Operator::DynamicMetadata(filter, path, limit) => cut(*limit, line, |line| metadata(info, filter, path, line)),
        Operator::Cel(program, limit) => cut(*limit, line, |line| expression(program, info, line)),
        Operator::Coalesce(operators, limit) => cut(*limit, line, |line| {
            let start = line.len();
            operators.iter().any(|operator| append(operator, info, line) && line.len() > start)
        }),
    }
}

/// The place of the request's span in its trace.
fn context(info: &StreamInfo) -> Option<&Context> {
    info.trace.as_ref()?.context()
}

/// Where the last attempt went, if that is an address and there was a connection.
fn upstream(info: &StreamInfo) -> Option<SocketAddr> {
    info.upstream_local.and(info.upstream_host.as_ref())?.parse().ok()
}

/// Of a gRPC call: what the trailers say, or the head of an answer without any, or what the status of the answer stands for.
pub(super) fn grpc_status(info: &StreamInfo) -> Option<u16> {
    if !is_grpc(&info.request_headers) {
        return None;
    }
    let given = info.trailers.get(&GRPC_STATUS).or_else(|| info.response_headers.get(&GRPC_STATUS));
    match given {
        Some(given) => given.to_str().ok()?.parse().ok(),
        None => Some(info.status).filter(|status| *status != 0).map(of_http),
    }
}

fn grpc_name(code: u16, names: GrpcNames, line: &mut Vec<u8>) -> bool {
    match GRPC_NAMES.get(usize::from(code)) {
        Some((camel, _)) if names == GrpcNames::Camel => text(Some(camel), line),
        Some((_, snake)) if names == GrpcNames::Snake => text(Some(snake), line),
        _ => number(code.into(), line),
    }
}

/// gRPC's own mapping (`doc/http-grpc-status-mapping.md`).
fn of_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn query_param(info: &StreamInfo, name: &str, limit: Option<usize>, line: &mut Vec<u8>) -> bool {
    let Some(start) = memchr::memchr(b'?', &info.path) else { return false };
    let mut pairs = info.path[start + 1..].split(|byte| *byte == b'&');
    let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let Some(value) = value else { return false };
    line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]);
    true
}

/// Cuts what is appended after so many bytes.
fn cut(limit: Option<usize>, line: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let start = line.len();
    let found = append(line);
    line.truncate(line.len().min(start.saturating_add(limit.unwrap_or(usize::MAX))));
    found
}

/// What an expression is worth: text as it is, everything else as JSON; nothing for null.
fn expression(program: &Program, info: &StreamInfo, line: &mut Vec<u8>) -> bool {
    match program.value(info) {
        None | Some(Value::Null) => false,
        // A count has no exponent, as numbers of JSON have where that is shorter.
        Some(Value::Number(value)) => display(&value, line),
        Some(Value::String(value)) => {
            line.extend_from_slice(value.as_bytes());
            true
        }
        Some(value) => display(&value, line),
    }
}

static GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
static REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: Option<&str>, line: &mut Vec<u8>) -> bool {
    line.extend_from_slice(value.unwrap_or_default().as_bytes());
    value.is_some_and(|value| !value.is_empty())
}

/// Text as it is, everything else as JSON.
fn metadata(info: &StreamInfo, filter: &str, path: &[String], line: &mut Vec<u8>) -> bool {
    if path.is_empty() {
        let all = info.metadata.fields(filter);
        return all.is_some_and(|fields| display(&Value::Struct(fields.clone()), line));
    }
    match info.metadata.at(filter, path) {
        None => false,
        Some(Value::String(value)) => {
            line.extend_from_slice(value.as_bytes());
            true
        }
        Some(value) => display(value, line),
    }
}

fn list(values: &[String], line: &mut Vec<u8>) -> bool {
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            line.push(b',');
        }
        line.extend_from_slice(value.as_bytes());
    }
    !values.is_empty()
}

fn number(value: u64, line: &mut Vec<u8>) -> bool {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

fn display(value: &dyn std::fmt::Display, line: &mut Vec<u8>) -> bool {
    // Writing to memory does not fail.
    let _ = write!(line, "{value}");
    true
}

/// The general formatting of addresses costs more than all the rest of a line.
fn ip(ip: IpAddr, line: &mut Vec<u8>) -> bool {
    let IpAddr::V4(v4) = ip else { return display(&ip, line) };
    for (place, octet) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            line.push(b'.');
        }
        number(octet.into(), line);
    }
    true
}

fn address(at: SocketAddr, line: &mut Vec<u8>) -> bool {
    if at.is_ipv6() {
        return display(&at, line);
    }
    ip(at.ip(), line);
    line.push(b':');
    number(at.port().into(), line)
}

/// ISO 8601 with milliseconds, as Envoy writes it. All but the milliseconds is formatted once a second.
fn start_time(at: SystemTime, line: &mut Vec<u8>) -> bool {
    thread_local! {
        static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            text.clear();
            formatted_time(at, "%Y-%m-%dT%H:%M:%S.", text);
        }
        line.extend_from_slice(text);
    });
    let millis = since.subsec_millis();
    line.extend([millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
    line.push(b'Z');
    true
}

fn formatted_time(at: SystemTime, format: &str, line: &mut Vec<u8>) -> bool {
    jiff::Timestamp::try_from(at).is_ok_and(|at| display(&at.strftime(format), line))
}

fn request(info: &StreamInfo, fields: [Option<&Field>; 2], limit: Option<usize>, line: &mut Vec<u8>) -> bool {
    for field in fields.into_iter().flatten() {
        let value: Option<&[u8]> = match field {
            Field::Method => info.method.as_ref().map(|method| method.as_str().as_bytes()),
            Field::Path => Some(&info.path[..]),
            Field::Authority => Some(&info.authority[..]),
            Field::Scheme => Some(info.scheme().as_str().as_bytes()),
            Field::Header(name) if name.as_str() == "x-envoy-original-path" => info.original_path.as_deref(),
            Field::Header(name) => info.request_headers.get(name).map(http::HeaderValue::as_bytes),
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]);
            return true;
        }
    }
    false
}

fn header(
    headers: &Headers,
    first: &http::HeaderName,
    second: Option<&http::HeaderName>,
    limit: Option<usize>,
    line: &mut Vec<u8>,
) -> bool {
    let value = headers.get(first).or_else(|| second.and_then(|name| headers.get(name)));
    let Some(value) = value.map(http::HeaderValue::as_bytes) else { return false };
    line.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_are_as_the_general_formatting_has_them() {
        for millis in [0, 7, 80, 999, 1_782_907_199_999, 1_782_907_200_000] {
            let at = UNIX_EPOCH + std::time::Duration::from_millis(millis);
            let (mut ours, mut general) = (Vec::new(), Vec::new());
            start_time(at, &mut ours);
            formatted_time(at, "%Y-%m-%dT%H:%M:%S.%3fZ", &mut general);
            assert_eq!(String::from_utf8(ours), String::from_utf8(general));
        }
        for text in ["0.0.0.0:0", "127.0.0.1:19000", "255.10.9.100:65535", "[::1]:80", "[2001:db8::1]:8080"] {
            let at: SocketAddr = text.parse().expect("it is an address");
            let mut line = Vec::new();
            address(at, &mut line);
            assert_eq!(String::from_utf8_lossy(&line), text);
        }
    }
}

//! Envoy's substitution formats: text with `%OPERATORS%`, parsed once. Who evaluates them gives the values.

use std::sync::Arc;

use http::HeaderName;
use lateen_cel::Program;
use serde_json::Value as Json;

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Operator(Operator),
}

/// What stands between percent signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    StartTime(Option<String>),
    /// A request header, or else a second one; cut after so many bytes.
    Request(Field, Option<Field>, Option<usize>),
    RequestWithoutQuery(Field, Option<Field>, Option<usize>),
    Response(HeaderName, Option<HeaderName>, Option<usize>),
    Trailer(HeaderName, Option<HeaderName>, Option<usize>),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    RequestTxDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamHostName,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamLocalAddressWithoutPort,
    UpstreamLocalPort,
    UpstreamRemoteAddress,
    UpstreamRemoteAddressWithoutPort,
    UpstreamRemotePort,
    UpstreamRequestAttemptCount,
    UpstreamPeerUriSan,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamDirectRemotePort,
    DownstreamPeerUriSan,
    DownstreamPeerDnsSan,
    DownstreamPeerSubject,
    DownstreamPeerFingerprint256,
    DownstreamLocalUriSan,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    GrpcStatus(GrpcNames),
    TraceId,
    SpanId,
    /// Of the query, by its name, as it came; cut after so many bytes.
    QueryParam(String, Option<usize>),
    Hostname,
    Environment(String),
    ConnectionId,
    StreamId,
    FilterChainName,
    UpstreamProtocol,
    /// What a filter said: its name, the path to the value (all that it said, if there is none), and where to cut.
    DynamicMetadata(String, Vec<String>, Option<usize>),
    /// What an expression is worth; cut after so many bytes.
    Cel(Arc<Program>, Option<usize>),
    /// The first of these that stands for something.
    Coalesce(Vec<Self>, Option<usize>),
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcNames {
    /// `NotFound`.
    Camel,
    /// `NOT_FOUND`.
    Snake,
    /// `5`.
    Number,
}

/// A request header or pseudo header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Header(HeaderName),
}

impl Format {
    /// Parses a format; `%%` is a percent sign.
    ///
    /// # Errors
    /// A sentence that names the operator which is not known or not complete.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let end = operator_end(rest).ok_or_else(|| format!("`%{rest}` has no closing percent sign"))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Operator(operator(&rest[..end])?));
            rest = &rest[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Writes the format with `value` appending what each operator stands for.
    pub fn write(&self, line: &mut Vec<u8>, mut value: impl FnMut(&Operator, &mut Vec<u8>)) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator) => value(operator, line),
            }
        }
    }
}

/// The closing percent sign. Of an operator with an argument (`%START_TIME(%Y)%`) it is the first behind `)` or `):LENGTH`.
fn operator_end(text: &str) -> Option<usize> {
    let name = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    if !text[name..].starts_with('(') {
        return text.find('%');
    }
    let ends = |at: &usize| {
        let before = &text[..*at];
        let length = before.rfind(':').filter(|colon| *colon + 1 < *at);
        let length = length.filter(|colon| before[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()));
        before.ends_with(')') || length.is_some_and(|colon| before[..colon].ends_with(')'))
    };
    let found = text.match_indices('%').map(|(at, _)| at).find(ends);
    found.or_else(|| text.find('%').filter(|at| !text[..*at].contains(')')))
}

fn operator(text: &str) -> Result<Operator, String> {
    let (name, argument, limit) = split(text)?;
    let header = |build: fn(HeaderName, Option<HeaderName>, Option<usize>) -> Operator| {
        let (first, second) = alternatives(argument, text)?;
        let name = |text: &str| HeaderName::try_from(text).map_err(|_| format!("`{text}` is no header name"));
        Ok(build(name(first)?, second.map(name).transpose()?, limit))
    };
    let request = |build: fn(Field, Option<Field>, Option<usize>) -> Operator| {
        let (first, second) = alternatives(argument, text)?;
        Ok(build(field(first)?, second.map(field).transpose()?, limit))
    };
    Ok(match name {
        "REQ" => return request(Operator::Request),
        "REQ_WITHOUT_QUERY" => return request(Operator::RequestWithoutQuery),
        "RESP" => return header(Operator::Response),
        "TRAILER" => return header(Operator::Trailer),
        "START_TIME" => Operator::StartTime(argument.map(str::to_owned)),
        "ENVIRONMENT" => Operator::Environment(argument.unwrap_or_default().to_owned()),
        "GRPC_STATUS" => Operator::GrpcStatus(match argument {
            None | Some("" | "CAMEL_STRING") => GrpcNames::Camel,
            Some("SNAKE_STRING") => GrpcNames::Snake,
            Some("NUMBER") => GrpcNames::Number,
            Some(_) => return Err(format!("`%{text}%` is none of CAMEL_STRING, SNAKE_STRING and NUMBER")),
        }),
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcNames::Number),
        "QUERY_PARAM" => {
            let name = argument.filter(|name| !name.is_empty());
            Operator::QueryParam(name.ok_or_else(|| format!("`%{text}%` needs a name"))?.to_owned(), limit)
        }
        "METADATA" => {
            let rest = argument.and_then(|argument| argument.strip_prefix("DYNAMIC:"));
            let rest = rest.ok_or_else(|| format!("`%{text}%`: only DYNAMIC metadata is known"))?;
            let mut steps = rest.split(':').map(str::to_owned);
            Operator::DynamicMetadata(steps.next().unwrap_or_default(), steps.collect(), limit)
        }
        "DYNAMIC_METADATA" => {
            let mut steps = argument.unwrap_or_default().split(':').map(str::to_owned);
            let filter = steps.next().filter(|filter| !filter.is_empty());
            let filter = filter.ok_or_else(|| format!("`%{text}%` needs a filter's name"))?;
            Operator::DynamicMetadata(filter, steps.collect(), limit)
        }
        "CEL" => {
            let expression = argument.ok_or_else(|| format!("`%{text}%` needs an expression"))?;
            let program = Program::parse(expression).map_err(|error| format!("`{expression}`: {error}"))?;
            Operator::Cel(Arc::new(program), limit)
        }
        "COALESCE" => Operator::Coalesce(coalesced(argument.unwrap_or_default())?, limit),
        _ if argument.is_some() => return Err(format!("`%{text}%` is not a known operator")),
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::RequestDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalPort,
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamRemoteAddressWithoutPort,
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemotePort,
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "UPSTREAM_PEER_URI_SAN" => Operator::UpstreamPeerUriSan,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamDirectRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemotePort,
        "DOWNSTREAM_PEER_DNS_SAN" => Operator::DownstreamPeerDnsSan,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::DownstreamPeerFingerprint256,
        "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
        "DOWNSTREAM_PEER_URI_SAN" => Operator::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => Operator::DownstreamPeerSubject,
        "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualClusterName,
        "HOSTNAME" => Operator::Hostname,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        _ => return Err(format!("`%{text}%` is not a known operator")),
    })
}

/// `{"operators": ["PROTOCOL", {"command": "REQ", "param": "x-a", "max_length": 3}]}`.
fn coalesced(argument: &str) -> Result<Vec<Operator>, String> {
    let wrong = || format!("`{argument}` is not an object with a list of operators");
    let json: Json = serde_json::from_str(argument).map_err(|_| wrong())?;
    let operators = json.get("operators").and_then(Json::as_array).filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    let one = |entry: &Json| {
        let part = |name: &str| entry.get(name).and_then(Json::as_str);
        let name = entry.as_str().or_else(|| part("command")).ok_or_else(wrong)?;
        let argument = part("param").map(|param| format!("({param})")).unwrap_or_default();
        let limit = entry.get("max_length").and_then(Json::as_u64).map(|limit| format!(":{limit}")).unwrap_or_default();
        operator(&format!("{name}{argument}{limit}"))
    };
    operators.iter().map(one).collect()
}

/// `NAME(argument):limit`.
fn split(text: &str) -> Result<(&str, Option<&str>, Option<usize>), String> {
    let (head, limit) = match text.rfind(':') {
        Some(colon) if text[..colon].ends_with(')') && !text[colon..].contains(')') => {
            let limit = text[colon + 1..].parse().map_err(|_| format!("`%{text}%`: the length must be a number"))?;
            (&text[..colon], Some(limit))
        }
        _ => (text, None),
    };
    match head.split_once('(') {
        None => Ok((head, None, limit)),
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(argument) => Ok((name, Some(argument), limit)),
            None => Err(format!("`%{text}%` has no closing parenthesis")),
        },
    }
}

/// `FIRST?SECOND`.
fn alternatives<'a>(argument: Option<&'a str>, text: &str) -> Result<(&'a str, Option<&'a str>), String> {
    let argument =
        argument.filter(|argument| !argument.is_empty()).ok_or_else(|| format!("`%{text}%` needs a header's name"))?;
    Ok(argument.split_once('?').map_or((argument, None), |(first, second)| (first, Some(second))))
}

/// A header or pseudo header by its name.
pub(crate) fn field(name: &str) -> Result<Field, String> {
    Ok(match name.to_ascii_uppercase().as_str() {
        ":METHOD" => Field::Method,
        ":PATH" => Field::Path,
        ":AUTHORITY" | "HOST" => Field::Authority,
        ":SCHEME" => Field::Scheme,
        _ => Field::Header(HeaderName::try_from(name).map_err(|_| format!("`{name}` is no header name"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_operators_are_told_apart() {
        let format = Format::parse("100%% [%START_TIME(%Y-%m)%] %REQ(X-A?:PATH):10%\n").expect("it is right");
        assert_eq!(format.0[0], Piece::Text("100% [".into()));
        assert_eq!(format.0[1], Piece::Operator(Operator::StartTime(Some("%Y-%m".into()))));
        let request = Operator::Request(Field::Header(HeaderName::from_static("x-a")), Some(Field::Path), Some(10));
        assert_eq!(format.0[3], Piece::Operator(request));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, part) in
            [("%NOPE%", "NOPE"), ("%REQ()%", "header"), ("%START", "closing"), ("%PROTOCOL(x)%", "PROTOCOL")]
        {
            let error = Format::parse(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }
}

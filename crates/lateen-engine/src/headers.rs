//! Headers that the connection manager and the router set: who asked, under which id, for how long.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::http::{ForwardClientCert, HttpConnectionManager};
use crate::filters::rbac::PeerNames;
use crate::message::{Headers, RequestHead};

macro_rules! names {
    ($($constant:ident = $name:literal;)+) => {
        $(pub const $constant: HeaderName = HeaderName::from_static($name);)+
    };
}

names! {
    FORWARDED_FOR = "x-forwarded-for";
    FORWARDED_PROTO = "x-forwarded-proto";
    FORWARDED_HOST = "x-forwarded-host";
    FORWARDED_PORT = "x-forwarded-port";
    FORWARDED_CLIENT_CERT = "x-forwarded-client-cert";
    REQUEST_ID = "x-request-id";
    INTERNAL = "x-envoy-internal";
    EXTERNAL_ADDRESS = "x-envoy-external-address";
    ORIGINAL_PATH = "x-envoy-original-path";
    ORIGINAL_HOST = "x-envoy-original-host";
    EXPECTED_TIMEOUT = "x-envoy-expected-rq-timeout-ms";
    UPSTREAM_TIMEOUT = "x-envoy-upstream-rq-timeout-ms";
    PER_TRY_TIMEOUT = "x-envoy-upstream-rq-per-try-timeout-ms";
    RETRY_ON = "x-envoy-retry-on";
    RETRY_GRPC_ON = "x-envoy-retry-grpc-on";
    MAX_RETRIES = "x-envoy-max-retries";
    SERVICE_TIME = "x-envoy-upstream-service-time";
    ATTEMPT_COUNT = "x-envoy-attempt-count";
    OVERLOADED = "x-envoy-overloaded";
    LOCAL_OVERLOADED = "x-envoy-local-overloaded";
    GRPC_TIMEOUT = "grpc-timeout";
    GRPC_STATUS = "grpc-status";
    GRPC_MESSAGE = "grpc-message";
}

/// What only a trusted hop may say; taken off requests that come from outside.
static INTERNAL_ONLY: [HeaderName; 14] = [
    RETRY_ON,
    RETRY_GRPC_ON,
    MAX_RETRIES,
    UPSTREAM_TIMEOUT,
    PER_TRY_TIMEOUT,
    EXPECTED_TIMEOUT,
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
];

/// What only a mesh's own client says of itself; taken off at an edge.
static DOWNSTREAM_SERVICE: [HeaderName; 3] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// Whether any field is one of Envoy's own, by which requests ask for this and that: most say nothing of the kind.
pub fn says_envoy(headers: &Headers) -> bool {
    headers.any_begins_with("x-envoy-")
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Where the client wanted to go.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// None without a client certificate.
    pub peer: Option<Peer<'a>>,
}

/// A client that has shown a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub names: &'a PeerNames,
    /// SHA-256 of the certificate, in hexadecimal.
    pub certificate_hash: &'a str,
    /// The names in our own certificate.
    pub own: &'a PeerNames,
}

/// What the connection manager makes of a request's origin.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The client behind trusted proxies.
    pub remote: IpAddr,
    pub internal: bool,
}

/// Brings the headers in line with where the request comes from (Envoy's `mutateRequestHeaders`).
pub fn on_arrival(
    head: &mut RequestHead,
    manager: &HttpConnectionManager,
    connection: &Arrival<'_>,
    id: impl Fn() -> HeaderValue,
) -> Origin {
    let origin = forwarded_for(head, manager, connection);
    let edge = manager.use_remote_address && !origin.internal;
    let says_envoy = says_envoy(&head.headers);
    if says_envoy {
        if !origin.internal {
            head.headers.retain(|name, _| !INTERNAL_ONLY.contains(name));
        }
        head.headers.remove(&INTERNAL);
    }
    if manager.use_remote_address {
        if says_envoy {
            if edge {
                head.headers.retain(|name, _| !DOWNSTREAM_SERVICE.contains(name));
            }
            head.headers.remove(&EXTERNAL_ADDRESS);
            head.headers.remove(&ORIGINAL_PATH);
        }
        if edge && let Ok(value) = HeaderValue::from_str(&origin.remote.to_string()) {
            head.headers.set(EXTERNAL_ADDRESS, value);
        }
    }
    if origin.internal {
        head.headers.set(INTERNAL, HeaderValue::from_static("true"));
    }
    client_certificate(head, manager, connection);
    if manager.generate_request_id {
        let keep = head.headers.contains(&REQUEST_ID) && (!edge || manager.preserve_external_request_id);
        if !keep {
            head.headers.set(REQUEST_ID, id());
        }
    }
    if let Some(via) = &manager.via {
        head.headers.append(http::header::VIA, via.clone());
    }
    origin
}

fn forwarded_for(head: &mut RequestHead, manager: &HttpConnectionManager, connection: &Arrival<'_>) -> Origin {
    let scheme = HeaderValue::from_static(head.scheme.as_str());
    let hops = usize::try_from(manager.xff_num_trusted_hops).unwrap_or(usize::MAX);
    if !manager.use_remote_address {
        if !head.headers.contains(&FORWARDED_PROTO) {
            head.headers.append(FORWARDED_PROTO, scheme);
        }
        let remote = nth_from_end(&head.headers, hops).unwrap_or_else(|| connection.remote.ip());
        return Origin { remote, internal: false };
    }
    let remote = if hops == 0 { None } else { nth_from_end(&head.headers, hops - 1) };
    if !manager.skip_xff_append {
        append_to_list(&mut head.headers, FORWARDED_FOR, &connection.remote.ip().to_string());
    }
    if hops == 0 || !head.headers.contains(&FORWARDED_PROTO) {
        head.headers.set(FORWARDED_PROTO, scheme);
    }
    if manager.append_x_forwarded_port && !head.headers.contains(&FORWARDED_PORT) {
        head.headers.append(FORWARDED_PORT, HeaderValue::from(connection.local.port()));
    }
    Origin { remote: remote.unwrap_or_else(|| connection.remote.ip()), internal: false }
}

/// The address that stands at a place in `x-forwarded-for`, counted from its end.
fn nth_from_end(headers: &Headers, place: usize) -> Option<IpAddr> {
    let values: Vec<&str> = headers
        .get_all(&FORWARDED_FOR)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    values.iter().rev().nth(place)?.parse().ok()
}

/// Appends to the last field of that name, with a comma.
fn append_to_list(headers: &mut Headers, name: HeaderName, text: &str) {
    let before: Vec<&[u8]> = headers.get_all(&name).map(HeaderValue::as_bytes).collect();
    let mut joined = before.join(&b","[..]);
    if !joined.is_empty() {
        joined.push(b',');
    }
    joined.extend_from_slice(text.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.set(name, value);
    }
}

/// `x-forwarded-client-cert`, as `forward_client_cert_details` asks.
fn client_certificate(head: &mut RequestHead, manager: &HttpConnectionManager, connection: &Arrival<'_>) {
    let peer = connection.peer.as_ref();
    match manager.forward_client_cert {
        ForwardClientCert::AlwaysForwardOnly => return,
        ForwardClientCert::ForwardOnly if peer.is_some() => return,
        ForwardClientCert::AppendForward if peer.is_some() => {}
        _ => drop(head.headers.remove(&FORWARDED_CLIENT_CERT)),
    }
    let set = matches!(manager.forward_client_cert, ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet);
    let Some(peer) = peer.filter(|_| set) else { return };
    let details = manager.client_cert_details;
    let mut parts: Vec<String> = peer.own.uri_sans.iter().map(|uri| format!("By={uri}")).collect();
    parts.push(format!("Hash={}", peer.certificate_hash));
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.names.subject.replace('"', "\\\"")));
    }
    if details.uri {
        parts.extend(peer.names.uri_sans.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        parts.extend(peer.names.dns_sans.iter().map(|name| format!("DNS={name}")));
    }
    append_to_list(&mut head.headers, FORWARDED_CLIENT_CERT, &parts.join(";"));
}

/// `x-envoy-…-ms` of a request.
pub fn millis(headers: &Headers, name: &HeaderName) -> Option<Duration> {
    headers.get(name)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// `grpc-timeout`: at most eight digits and a unit.
pub fn grpc_timeout(headers: &Headers) -> Option<Duration> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Most times in milliseconds have one digit, and need no memory.
pub fn number(value: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(value).ok().and_then(|value| DIGITS.get(value)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => HeaderValue::from(value),
    }
}

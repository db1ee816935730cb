//! The shapes of names and numbers: DNS names, wildcard hosts, ports, durations, regular expressions, addresses.

use std::net::IpAddr;
use std::str::FromStr as _;

use ipnet::IpNet;

use crate::scalar::{Duration, HeaderMatch, Percent, StringMatch};

pub(super) type Ruling = Result<(), String>;

/// RFC 1123 label, either case, as Istio checks host names.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// RFC 1123 label, lower case only: the names of Kubernetes objects.
pub(super) fn is_lower_label(text: &str) -> bool {
    is_label(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// `*`, `*foo`, `*-foo` or a label: the first part of a wildcard host.
fn is_wildcard_label(text: &str) -> bool {
    match text.strip_prefix('*') {
        None => is_label(text),
        Some("") => true,
        Some(rest) => text.len() <= 63 && is_label(rest.strip_prefix('-').unwrap_or(rest)),
    }
}

/// Each part of `tail`, which ends `domain`, is a label.
fn labels(tail: &str, domain: &str) -> Ruling {
    let parts: Vec<&str> = tail.split('.').collect();
    let last = parts.last().copied().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{domain}` is not a host name: its last part may not be a number"));
    }
    for (index, part) in parts.iter().enumerate() {
        // `istio.io.`, the form that is never completed by a search path.
        let absolute = index > 0 && index + 1 == parts.len() && part.is_empty();
        if !absolute && !is_label(part) {
            return Err(format!("`{domain}` is not a host name: `{part}` may not be a part of one"));
        }
    }
    Ok(())
}

fn length(domain: &str) -> Ruling {
    match domain.len() {
        0 => Err("a host name may not be empty".to_owned()),
        1..=255 => Ok(()),
        _ => Err(format!(
            "the host name `{}…` is longer than 255 characters",
            domain.chars().take(40).collect::<String>()
        )),
    }
}

/// A host name without wildcard.
pub(super) fn host(domain: &str) -> Ruling {
    length(domain)?;
    labels(domain, domain)
}

/// A host name whose first part may be `*` or begin with it.
pub(super) fn wildcard_host(domain: &str) -> Ruling {
    length(domain)?;
    let (first, rest) = domain.split_once('.').map_or((domain, None), |(first, rest)| (first, Some(rest)));
    if !is_wildcard_label(first) {
        return Err(format!("`{domain}` is not a host name: `{first}` may not be a part of one"));
    }
    rest.map_or(Ok(()), |rest| labels(rest, domain))
}

/// A host name, possibly with wildcard, or an IP address.
pub(super) fn wildcard_host_or_ip(domain: &str) -> Ruling {
    if IpAddr::from_str(domain).is_ok() { Ok(()) } else { wildcard_host(domain) }
}

/// True if every host that `inner` stands for is one that `outer` stands for.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix),
        None => outer.eq_ignore_ascii_case(inner),
    }
}

pub(super) fn port(number: u32) -> Ruling {
    match number {
        1..=65535 => Ok(()),
        _ => Err(format!("port {number} is not in the range 1 to 65535")),
    }
}

/// The name of a port: a label.
pub(super) fn port_name(name: &str) -> Ruling {
    if is_label(name) {
        Ok(())
    } else {
        Err(format!("`{name}` is not a port name: letters, digits and `-`, at most 63"))
    }
}

/// What a port may say it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tls,
    Tcp,
    Udp,
}

/// Istio's protocol words, in any case.
pub(super) fn protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "http" | "http2" | "grpc" | "grpc-web" | "http_proxy" => Some(Protocol::Http),
        "https" | "tls" => Some(Protocol::Tls),
        "tcp" | "mongo" | "redis" | "mysql" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

pub(super) fn unknown_protocol(text: &str) -> String {
    format!("`{text}` is not a protocol; known are HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, REDIS, MYSQL")
}

/// At least a millisecond, and whole milliseconds (Istio's `ValidateDuration`).
pub(super) fn duration(duration: Duration) -> Ruling {
    let nanos = duration.get().as_nanos();
    if nanos < 1_000_000 {
        Err(format!("{duration} is too short; at least 1ms"))
    } else if !nanos.is_multiple_of(1_000_000) {
        Err(format!("{duration} is finer than a millisecond"))
    } else {
        Ok(())
    }
}

/// The name of a Secret of the proxy's own namespace; what reads like a place elsewhere is none.
pub(super) fn credential(name: &str) -> Ruling {
    if name.contains("://") {
        return Err(format!("`{name}` is not the name of a Secret: it must be one of the proxy's own namespace"));
    }
    Ok(())
}

/// 0, or 0.0001 to 100.
pub(super) fn percentage(percent: Percent) -> Ruling {
    let value = percent.value;
    if value == 0.0 || (0.0001..=100.0).contains(&value) {
        Ok(())
    } else {
        Err(format!("{value} is not a percentage: 0, or 0.0001 to 100"))
    }
}

/// 0 to 100, whole.
pub(super) fn whole_percent(value: i64) -> Ruling {
    if (0..=100).contains(&value) { Ok(()) } else { Err(format!("{value} is not in the range 0 to 100")) }
}

/// A regular expression that the proxy will take: not empty, at most 1024 characters, compiles.
pub(super) fn regex(pattern: &str) -> Ruling {
    const LONGEST: usize = 1024;
    if pattern.is_empty() {
        return Err("the regular expression is empty".to_owned());
    }
    if pattern.len() > LONGEST {
        return Err(format!("the regular expression has {} characters; at most {LONGEST}", pattern.len()));
    }
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err("the regular expression is too big when compiled".to_owned()),
        Err(error) => {
            // The last line says why; those before draw an arrow.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(format!("`{pattern}` is not a regular expression (RE2 syntax): {reason}"))
        }
    }
}

/// A prefix is not empty, a regex is one.
pub(super) fn string_match(wanted: &StringMatch) -> Ruling {
    match wanted {
        StringMatch::Exact(_) => Ok(()),
        StringMatch::Prefix(prefix) if prefix.is_empty() => Err("the prefix is empty".to_owned()),
        StringMatch::Prefix(_) => Ok(()),
        StringMatch::Regex(pattern) => regex(pattern),
    }
}

/// The same, where the regex `*` means "present".
pub(super) fn header_match(wanted: &HeaderMatch) -> Ruling {
    match &wanted.0 {
        Some(inner) if !wanted.is_presence() => string_match(inner),
        _ => Ok(()),
    }
}

/// An address or a CIDR block.
pub(super) fn subnet(text: &str) -> Ruling {
    if IpAddr::from_str(text).is_ok() || IpNet::from_str(text).is_ok() {
        Ok(())
    } else {
        Err(format!("`{text}` is neither an IP address nor a CIDR block"))
    }
}

pub(super) fn ip(text: &str) -> Ruling {
    if IpAddr::from_str(text).is_ok() { Ok(()) } else { Err(format!("`{text}` is not an IP address")) }
}

/// The path of a Unix socket: absolute, no folder; or abstract, from `@`.
pub(super) fn unix_path(path: &str) -> Ruling {
    if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        Ok(())
    } else {
        Err(format!("`{path}` is not the absolute path of a socket"))
    }
}

/// A label's key: an optional DNS name and `/`, then up to 63 characters.
pub(super) fn label_key(key: &str) -> Ruling {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(|prefix| host(prefix).is_ok()) && is_qualified(name) {
        Ok(())
    } else {
        Err(format!("`{key}` is not a label key"))
    }
}

/// A label's value: empty, or up to 63 characters.
pub(super) fn label_value(value: &str) -> Ruling {
    if value.is_empty() || is_qualified(value) { Ok(()) } else { Err(format!("`{value}` is not a label value")) }
}

/// Letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_qualified(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

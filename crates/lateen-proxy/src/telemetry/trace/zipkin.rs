//! Spans as Zipkin's JSON, version 2.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::span::{Finished, Kind};
use super::tracer::NodeNames;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    kind: &'static str,
    /// Microseconds.
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint<'a>,
    tags: BTreeMap<&'a str, &'a str>,
    annotations: [Annotation; 1],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<IpAddr>,
    port: u16,
}

/// When the answer was sent, or received.
#[derive(Serialize)]
struct Annotation {
    timestamp: u64,
    value: &'static str,
}

pub(super) fn span(span: &Finished<'_>, shares: bool, node: &NodeNames) -> Vec<u8> {
    let Finished { context, kind, name, started, duration, tags, .. } = span;
    let is_server = *kind == Kind::Server;
    let address = node.address();
    let timestamp = micros(started.duration_since(UNIX_EPOCH).unwrap_or_default());
    let ended: SystemTime = *started + *duration;
    let span = Span {
        trace_id: context.trace.to_string(),
        id: format!("{:016x}", context.span),
        parent_id: context.parent.map(|parent| format!("{parent:016x}")),
        name,
        kind: if is_server { "SERVER" } else { "CLIENT" },
        timestamp,
        duration: micros(*duration),
        local_endpoint: Endpoint {
            service_name: &node.cluster,
            ipv4: address.filter(IpAddr::is_ipv4),
            ipv6: address.filter(IpAddr::is_ipv6),
            port: 0,
        },
        tags: tags.0.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (&**name, &**value)).collect(),
        annotations: [Annotation {
            timestamp: micros(ended.duration_since(UNIX_EPOCH).unwrap_or_default()),
            value: if is_server { "ss" } else { "cr" },
        }],
        shared: is_server && shares,
    };
    serde_json::to_vec(&span).expect("a span is text and numbers")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl NodeNames {
    /// Of the workload, which a mesh's node tells in its id: `sidecar~10.1.2.3~…`.
    fn address(&self) -> Option<IpAddr> {
        self.id.split('~').nth(1)?.parse().ok()
    }
}

//! `RequestMirrorPolicy`: copies of requests that go to other clusters, whose answers nobody waits for.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use http::HeaderName;

use super::without_port;
use crate::config::error::{At, refuse};
use crate::filters::http::{Share, fraction};
use crate::message::RequestHead;

#[derive(Debug)]
pub struct Mirror {
    target: Target,
    /// Of the requests; none: all.
    share: Option<Share>,
    host: MirrorHost,
}

#[derive(Debug)]
enum Target {
    Cluster(Arc<str>),
    /// The cluster's name is in this header.
    Header(HeaderName),
}

#[derive(Debug)]
enum MirrorHost {
    /// So that logs of the other side tell copies from requests.
    Suffixed,
    Kept,
    Literal(Bytes),
}

impl Mirror {
    pub(super) fn from_xds(policy: &RequestMirrorPolicy, at: &At) -> Option<Self> {
        // `trace_sampled` is about spans, which a copy has none of.
        refuse!(at, policy; request_headers_mutations);
        let target = match (policy.cluster.as_str(), policy.cluster_header.as_str()) {
            ("", "") => {
                at.field("cluster").error("is required");
                return None;
            }
            (cluster, "") => Target::Cluster(cluster.into()),
            ("", header) => match HeaderName::try_from(header) {
                Ok(name) => Target::Header(name),
                Err(_) => {
                    at.field("cluster_header").error(format!("`{header}` is no header name"));
                    return None;
                }
            },
            _ => {
                at.error("cluster and cluster_header exclude each other");
                return None;
            }
        };
        let share = policy.runtime_fraction.as_ref().and_then(|share| share.default_value.as_ref()).map(fraction);
        let host = match (policy.host_rewrite_literal.as_str(), policy.disable_shadow_host_suffix_append) {
            ("", false) => MirrorHost::Suffixed,
            ("", true) => MirrorHost::Kept,
            (literal, _) => MirrorHost::Literal(Bytes::copy_from_slice(literal.as_bytes())),
        };
        Some(Self { target, share, host })
    }

    /// The cluster that gets a copy of a request, whose head this is as it came and which drew `random`.
    pub fn cluster<'a>(&'a self, head: &'a RequestHead, random: u64) -> Option<Cow<'a, str>> {
        if self.share.as_ref().is_some_and(|share| !share.draws(random)) {
            return None;
        }
        match &self.target {
            Target::Cluster(name) => Some(Cow::Borrowed(name)),
            Target::Header(name) => {
                head.headers.get(name)?.to_str().ok().filter(|name| !name.is_empty()).map(Cow::Borrowed)
            }
        }
    }

    /// The share of requests that there are copies of, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.share.map_or(1.0, Share::fraction)
    }

    /// The host that a copy of a request to `authority` names.
    pub fn host(&self, authority: &Bytes) -> Bytes {
        match &self.host {
            MirrorHost::Kept => authority.clone(),
            MirrorHost::Literal(host) => host.clone(),
            MirrorHost::Suffixed => {
                let text = String::from_utf8_lossy(authority);
                let host = without_port(&text);
                Bytes::from(format!("{host}-shadow{}", &text[host.len()..]))
            }
        }
    }
}

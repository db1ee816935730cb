//! Services that a proxy itself asks by plain HTTP: `envoy.config.core.v3.HttpService`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use http::{HeaderName, HeaderValue};

use super::error::{At, refuse};
use super::scalar::duration;

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpService {
    pub cluster: Arc<str>,
    /// What the server is called.
    pub authority: String,
    /// With a slash in front.
    pub path: String,
    /// For the whole answer.
    pub timeout: Duration,
    /// Set on each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpService {
    pub(crate) fn from_xds(service: &core::HttpService, at: &At) -> Option<Self> {
        refuse!(at, service; formatters);
        let of_uri = at.field("http_uri");
        let Some(uri) = &service.http_uri else {
            of_uri.error("is required");
            return None;
        };
        let cluster = match uri.http_upstream_type.as_ref() {
            Some(core::http_uri::HttpUpstreamType::Cluster(cluster)) if !cluster.is_empty() => cluster,
            _ => {
                of_uri.field("cluster").error("is required");
                return None;
            }
        };
        let (authority, path) = split(&uri.uri);
        let timeout = duration(uri.timeout.as_ref(), &of_uri.field("timeout"));
        if uri.timeout.is_none() {
            of_uri.field("timeout").error("is required");
        }
        Some(Self {
            cluster: cluster.as_str().into(),
            authority: if authority.is_empty() { cluster.clone() } else { authority.to_owned() },
            path: path.to_owned(),
            timeout: timeout?,
            headers: headers(&service.request_headers_to_add, at)?,
        })
    }
}

/// Host and path of `http://host/path`, whose scheme may be left out; the cluster decides about TLS.
fn split(uri: &str) -> (&str, &str) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    }
}

fn headers(options: &[core::HeaderValueOption], at: &At) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let read = |(index, option): (usize, &core::HeaderValueOption)| {
        let at = at.index("request_headers_to_add", index);
        let header = option.header.as_ref()?;
        if header.value.contains('%') {
            at.field("header.value").error("operators are not supported here");
            return None;
        }
        match (HeaderName::try_from(header.key.as_str()), HeaderValue::try_from(header.value.as_str())) {
            (Ok(name), Ok(value)) => Some((name, value)),
            _ => {
                at.error("is no header");
                None
            }
        }
    };
    options.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_are_told_apart() {
        for (uri, host, path) in [
            ("http://zipkin.ns:9411/api/v2/spans", "zipkin.ns:9411", "/api/v2/spans"),
            ("collector.ns/v1/traces", "collector.ns", "/v1/traces"),
            ("https://collector.ns", "collector.ns", "/"),
            ("/v1/traces", "", "/v1/traces"),
        ] {
            assert_eq!(split(uri), (host, path), "{uri}");
        }
    }
}

//! What spans say of requests: Envoy's tags (`HttpTracerUtility`), which dashboards and queries go by, and those that the
//! configuration adds.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use lateen_engine::config::tracing::{CustomTag, TagSource};
use lateen_engine::flags::ResponseFlags;
use lateen_engine::message::{Headers, Version, is_grpc};
use lateen_engine::route::format::{Format, Operator};

use super::super::operators;
use super::super::stream_info::StreamInfo;
use lateen_engine::headers::{FORWARDED_PROTO, GRPC_MESSAGE, GRPC_STATUS, GRPC_TIMEOUT, REQUEST_ID};

const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const DOWNSTREAM_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");

/// Names and values in their order; a name that comes again says something else.
#[derive(Debug, Default)]
pub(crate) struct Tags(pub(super) Vec<(Cow<'static, str>, String)>);

impl Tags {
    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    fn set_header(&mut self, name: &'static str, value: Option<&HeaderValue>) {
        if let Some(value) = value {
            self.set(name, text(value));
        }
    }

    /// Of a request's own span.
    pub(super) fn request(&mut self, info: &StreamInfo, max_path: usize) {
        let headers = &info.request_headers;
        let or_hyphen = |name: &HeaderName| headers.get(name).map_or_else(|| "-".to_owned(), text);
        self.set_header("guid:x-request-id", headers.get(&REQUEST_ID));
        self.set("http.url", url(info, max_path));
        self.set("http.method", info.method.as_ref().map_or("", |method| method.as_str()));
        self.set("downstream_cluster", or_hyphen(&DOWNSTREAM_CLUSTER));
        self.set("user_agent", or_hyphen(&http::header::USER_AGENT));
        self.set("http.protocol", protocol(info.protocol));
        self.set("peer.address", info.connection.direct_remote.ip().to_string());
        self.set_header("guid:x-client-trace-id", headers.get(&CLIENT_TRACE_ID));
        if is_grpc(headers) {
            self.set("grpc.path", String::from_utf8_lossy(&info.path));
            self.set("grpc.authority", String::from_utf8_lossy(&info.authority));
            self.set_header("grpc.content_type", headers.get(&http::header::CONTENT_TYPE));
            self.set_header("grpc.timeout", headers.get(&GRPC_TIMEOUT));
        }
        self.set("request_size", info.received.to_string());
        self.set("response_size", info.sent.to_string());
    }

    /// Of the span of one attempt.
    pub(super) fn attempt(&mut self, info: &StreamInfo) {
        self.set("http.protocol", protocol(info.upstream_protocol));
        if let Some(host) = &info.upstream_host {
            self.set("upstream_address", &**host);
            self.set("peer.address", &**host);
        }
    }

    /// Of both.
    pub(super) fn common(&mut self, info: &StreamInfo, status: u16, flags: ResponseFlags) {
        self.set("component", "proxy");
        if let Some(cluster) = &info.cluster {
            self.set("upstream_cluster", &**cluster);
            self.set("upstream_cluster.name", &**cluster);
        }
        self.set("http.status_code", status.to_string());
        self.set("response_flags", flags.to_string());
        if status == 0 || status >= 500 {
            self.set("error", "true");
        }
    }

    /// What an answer's head or trailers say of a gRPC call.
    pub(super) fn grpc_answer(&mut self, headers: &Headers) {
        let Some(status) = headers.get(&GRPC_STATUS) else { return };
        self.set("grpc.status_code", text(status));
        self.set_header("grpc.message", headers.get(&GRPC_MESSAGE));
        // What is the service's fault and not its client's.
        if matches!(status.as_bytes(), b"2" | b"4" | b"8" | b"12" | b"13" | b"14" | b"15") {
            self.set("error", "true");
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn protocol(version: Option<Version>) -> &'static str {
    version.map_or("-", Version::as_str)
}

/// The URL that was asked for, with its path as it came, cut.
fn url(info: &StreamInfo, max_path: usize) -> String {
    let path = info.original_path.as_ref().unwrap_or(&info.path);
    let path = String::from_utf8_lossy(&path[..path.len().min(max_path)]);
    let scheme = info.request_headers.get(&FORWARDED_PROTO).map(text);
    format!("{}://{}{path}", scheme.unwrap_or_default(), String::from_utf8_lossy(&info.authority))
}

/// A tag of the configuration, with what does not change read already.
#[derive(Debug)]
pub(crate) struct Custom {
    name: Arc<str>,
    says: Says,
}

#[derive(Debug)]
enum Says {
    Fixed(String),
    Operator(Operator, String),
    Format(Format),
}

impl Custom {
    pub(crate) fn new(tag: &CustomTag) -> Self {
        let says = match &tag.source {
            TagSource::Literal(value) => Says::Fixed(value.clone()),
            TagSource::Environment(name, default) => {
                Says::Fixed(crate::bootstrap::env::variable(name).unwrap_or_else(|| default.clone()))
            }
            TagSource::Operator(operator, default) => Says::Operator(operator.clone(), default.clone()),
            TagSource::Format(format) => Says::Format(format.clone()),
        };
        Self { name: Arc::clone(&tag.name), says }
    }

    /// What is empty is not said.
    pub(crate) fn set(&self, info: &StreamInfo, tags: &mut Tags) {
        let value = match &self.says {
            Says::Fixed(value) => value.clone(),
            Says::Operator(operator, default) => {
                let mut value = Vec::new();
                if operators::append(operator, info, &mut value) {
                    String::from_utf8_lossy(&value).into_owned()
                } else {
                    default.clone()
                }
            }
            Says::Format(format) => filled(format, info),
        };
        if !value.is_empty() {
            tags.set(self.name.to_string(), value);
        }
    }
}

/// A format in which what is not there is empty.
pub(super) fn filled(format: &Format, info: &StreamInfo) -> String {
    let mut value = Vec::new();
    format.write(&mut value, |operator, value| {
        operators::append(operator, info, value);
    });
    String::from_utf8_lossy(&value).into_owned()
}

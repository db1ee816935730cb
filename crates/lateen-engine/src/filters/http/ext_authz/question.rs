//! What the service is asked: a `CheckRequest`, or the request's own head.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::google::protobuf::Timestamp;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use prost::Message;

use super::{ExtAuthz, HttpService, PerRoute};
use crate::filters::ext_authz::{Ends, context};
use crate::message::{Headers, RequestHead, Version};
use crate::metadata::DynamicMetadata;

/// Whether the body that is told was cut.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
const SERVICE_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");

/// The request in question.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub head: &'a RequestHead,
    pub ends: Ends<'a>,
    /// Of the request, for the service's own logs.
    pub id: u64,
    pub time: SystemTime,
    /// Where bodies are told: as much of it as there is.
    pub body: Option<&'a Content>,
    /// What filters before said.
    pub metadata: &'a DynamicMetadata,
}

/// The beginning of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// As much as is told.
    pub bytes: Bytes,
    /// It is not all that was received.
    pub cut: bool,
    /// Bytes of the body that were received.
    pub received: u64,
}

impl ExtAuthz {
    /// The message to ask a gRPC service with.
    pub fn grpc_question(&self, asked: &Asked<'_>, of_route: Option<&PerRoute>) -> Bytes {
        let head = asked.head;
        let service = head.headers.get(&SERVICE_CLUSTER).map(|value| text(value.as_bytes())).unwrap_or_default();
        let time = asked.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut extensions: HashMap<String, String> = HashMap::new();
        extensions.extend(of_route.into_iter().flat_map(|of_route| of_route.extensions.clone()));
        let attributes = auth::AttributeContext {
            source: Some(asked.ends.source(service)),
            destination: Some(asked.ends.destination()),
            request: Some(auth::attribute_context::Request {
                time: Some(Timestamp {
                    seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
                }),
                http: Some(self.http_request(asked)),
            }),
            context_extensions: extensions,
            metadata_context: Some(context(asked.metadata, &self.metadata_namespaces)),
            route_metadata_context: Some(core::Metadata::default()),
            tls_session: self.tls_session.then(|| asked.ends.tls_session()),
        };
        auth::CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
    }

    fn http_request(&self, asked: &Asked<'_>) -> auth::attribute_context::HttpRequest {
        let head = asked.head;
        let mut out = auth::attribute_context::HttpRequest {
            id: asked.id.to_string(),
            method: head.method.to_string(),
            path: head.target().to_owned(),
            host: head.host().to_owned(),
            scheme: head.scheme.as_str().to_owned(),
            size: asked.body.map_or(0, |body| i64::try_from(body.received).unwrap_or(i64::MAX)),
            protocol: head.version.as_str().to_owned(),
            ..Default::default()
        };
        if self.encode_raw_headers {
            let header = |(name, value): (String, &[u8])| core::HeaderValue {
                key: name,
                raw_value: value.to_vec(),
                ..core::HeaderValue::default()
            };
            let mut headers: Vec<_> = self.told(head).map(header).collect();
            headers.extend(asked.body.map(|body| header((PARTIAL_BODY.to_owned(), cut(body).as_bytes()))));
            out.header_map = Some(core::HeaderMap { headers });
        } else {
            for (name, value) in self.told(head) {
                let value = text(value);
                out.headers.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
            }
            out.headers.extend(asked.body.map(|body| (PARTIAL_BODY.to_owned(), cut(body).to_owned())));
        }
        if let Some(body) = asked.body {
            if self.body.is_some_and(|settings| settings.as_bytes) {
                out.raw_body = body.bytes.to_vec();
            } else {
                out.body = text(&body.bytes);
            }
        }
        out
    }

    /// The headers that the service is to see, pseudo headers among them.
    fn told<'a>(&'a self, head: &'a RequestHead) -> impl Iterator<Item = (String, &'a [u8])> {
        let pseudo = [
            (":authority", &head.authority[..]),
            (":path", &head.path[..]),
            (":method", head.method.as_str().as_bytes()),
            (":scheme", head.scheme.as_str().as_bytes()),
        ];
        let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        pseudo
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .chain(fields)
            // A client's own word about bodies is none.
            .filter(|(name, _)| *name != PARTIAL_BODY && !self.disallowed_headers.has(name))
            .filter(|(name, _)| self.allowed_headers.as_ref().is_none_or(|allowed| allowed.has(name)))
            .map(|(name, value)| (name.to_owned(), value))
    }

    /// The head to ask an HTTP service with; the body goes with it.
    pub fn http_question(&self, service: &HttpService, asked: &Asked<'_>) -> (RequestHead, Bytes) {
        let body = asked.body.map(|body| body.bytes.clone()).unwrap_or_default();
        let mut headers = Headers::default();
        headers.append(CONTENT_LENGTH, body.len().into());
        let mut question = RequestHead {
            method: asked.head.method.clone(),
            scheme: asked.head.scheme,
            authority: Bytes::new(),
            path: Bytes::new(),
            headers: Headers::default(),
            version: Version::Http11,
        };
        for (name, value) in self.told(asked.head) {
            match name.as_str() {
                ":authority" => question.authority = Bytes::copy_from_slice(value),
                ":path" => question.path = [service.path_prefix.as_bytes(), value].concat().into(),
                ":method" | ":scheme" | "content-length" => {}
                _ => add(&mut headers, &name, value),
            }
        }
        if let Some(body) = asked.body {
            add(&mut headers, PARTIAL_BODY, cut(body).as_bytes());
        }
        question.headers = headers;
        (question, body)
    }
}

/// Fields of one name become one.
fn add(headers: &mut Headers, name: &str, value: &[u8]) {
    let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) else { return };
    let joined = headers.get(&name).map(|known| [known.as_bytes(), b",", value.as_bytes()].concat());
    match joined.map(|joined| HeaderValue::from_bytes(&joined)) {
        Some(Ok(joined)) => headers.set(name, joined),
        _ => headers.append(name, value),
    }
}

fn cut(body: &Content) -> &'static str {
    if body.cut { "true" } else { "false" }
}

/// As text; what is none becomes `!`, byte by byte, as Envoy has it.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '!'));
    }
    out
}

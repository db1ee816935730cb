//! Who is asked, and which headers go to and fro.

use std::sync::Arc;
use std::time::Duration;

use core::header_value_option::HeaderAppendAction;
use core::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;

use crate::config::GrpcService;
use crate::config::error::{At, refuse};
use crate::config::scalar::duration;
use crate::filters::ext_authz;
use crate::matching::StringMatcher;
use crate::route::Mutations;

#[derive(Clone, Debug)]
pub enum Service {
    Grpc(GrpcService),
    Http(Arc<HttpService>),
}

impl Service {
    pub(super) fn grpc(service: &core::GrpcService, at: &At) -> Option<Self> {
        ext_authz::grpc_service(service, at).map(Self::Grpc)
    }

    pub(super) fn http(service: &proto::HttpService, at: &At) -> Option<Self> {
        HttpService::from_xds(service, at).map(|service| Self::Http(Arc::new(service)))
    }

    pub fn cluster(&self) -> &Arc<str> {
        match self {
            Self::Grpc(service) => &service.cluster,
            Self::Http(service) => &service.cluster,
        }
    }
}

/// A service that answers a request's head, as it came, with a status.
#[derive(Debug)]
pub struct HttpService {
    pub cluster: Arc<str>,
    /// None: as long as it takes.
    pub timeout: Option<Duration>,
    /// For what it is asked.
    pub headers_to_add: Mutations,
    pub(super) path_prefix: String,
    /// Of its answer, for the request.
    pub(super) upstream: Names,
    pub(super) upstream_append: Names,
    /// Of its answer, for the client. None: all of a denial.
    pub(super) client: Option<Names>,
    pub(super) client_on_success: Names,
    pub(super) metadata: Names,
}

impl HttpService {
    fn from_xds(service: &proto::HttpService, at: &At) -> Option<Self> {
        refuse!(at, service; path_override, retry_policy);
        let of_uri = at.field("server_uri");
        let uri = service.server_uri.as_ref();
        let cluster = match uri.and_then(|uri| uri.http_upstream_type.as_ref()) {
            Some(HttpUpstreamType::Cluster(cluster)) if !cluster.is_empty() => cluster.as_str().into(),
            _ => {
                of_uri.field("cluster").error("is required");
                return None;
            }
        };
        let timeout = uri.and_then(|uri| duration(uri.timeout.as_ref(), &of_uri.field("timeout")));
        if !service.path_prefix.is_empty() && !service.path_prefix.starts_with('/') {
            at.field("path_prefix").error("must begin with `/`");
        }
        let added = service.authorization_request.as_ref().map_or(&[][..], |request| &request.headers_to_add);
        let set = |header: &core::HeaderValue| core::HeaderValueOption {
            header: Some(header.clone()),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
            ..core::HeaderValueOption::default()
        };
        let added: Vec<_> = added.iter().map(set).collect();
        let empty = proto::AuthorizationResponse::default();
        let answer = service.authorization_response.as_ref().unwrap_or(&empty);
        let of_answer = at.field("authorization_response");
        let names = |list: &Option<ListStringMatcher>, name: &str| Names::of(list.as_ref(), &of_answer.field(name));
        let mut client = names(&answer.allowed_client_headers, "allowed_client_headers");
        client.add(&["content-length", "www-authenticate", "location"]);
        let listed = answer.allowed_client_headers.as_ref().is_some_and(|list| !list.patterns.is_empty());
        Some(Self {
            cluster,
            timeout: Some(timeout.unwrap_or(ext_authz::TIMEOUT)).filter(|timeout| !timeout.is_zero()),
            headers_to_add: Mutations::of_request(&added, &[], &at.field("authorization_request")),
            path_prefix: service.path_prefix.clone(),
            upstream: names(&answer.allowed_upstream_headers, "allowed_upstream_headers"),
            upstream_append: names(&answer.allowed_upstream_headers_to_append, "allowed_upstream_headers_to_append"),
            client: listed.then_some(client),
            client_on_success: names(&answer.allowed_client_headers_on_success, "allowed_client_headers_on_success"),
            metadata: names(&answer.dynamic_metadata_from_headers, "dynamic_metadata_from_headers"),
        })
    }
}

/// Names of headers, by conditions.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<StringMatcher>);

impl Names {
    pub(super) fn of(list: Option<&ListStringMatcher>, at: &At) -> Self {
        let patterns = list.map_or(&[][..], |list| &list.patterns);
        let read = |(index, pattern)| StringMatcher::from_xds(pattern, &at.index("patterns", index));
        Self(patterns.iter().enumerate().filter_map(read).collect())
    }

    pub(super) fn add(&mut self, names: &[&str]) {
        self.0.extend(names.iter().map(|name| StringMatcher::exact(*name)));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|matcher| matcher.matches(name))
    }
}

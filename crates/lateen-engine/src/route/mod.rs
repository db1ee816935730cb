//! Route tables: from a request's head to what is done with it.

pub mod action;
pub mod format;
pub mod mirror;
pub mod mutation;
pub(crate) mod query;
pub mod raise;
pub mod redirect;
pub mod retry_policy;
pub mod stream_duration;
pub mod upgrade;
mod virtual_host;

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use prost::Message;

pub use action::{Action, Forward, RequestHash};
pub use mutation::Mutations;
pub use virtual_host::{Miss, RouteFacts, VirtualHost};

use crate::config::ConfigError;
use crate::config::error::{At, refuse};
use crate::config::metadata::Origin;
use crate::config::scalar::{discovered, u32_or};
use crate::filters::http::PerFilter;
use crate::message::RequestHead;
use crate::metadata::DynamicMetadata;
use crate::rate_limit::descriptor::{Described, Descriptor, Policy};
use virtual_host::HostIndex;
pub(crate) use virtual_host::RouteMatcher;
pub(crate) use virtual_host::without_port;

/// Bytes of a host that may be asked for: those of a name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// `RouteConfiguration`.
#[derive(Debug)]
pub struct RouteTable {
    pub name: Arc<str>,
    hosts: HostIndex,
    ignore_port: bool,
    /// Virtual hosts are asked for when requests need them.
    on_demand: bool,
    pub fingerprint: u64,
}

/// One route of a virtual host.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    matcher: RouteMatcher,
    pub action: Action,
    /// Most specific first: the route's, the virtual host's, the table's.
    pub request_headers: Mutations,
    pub response_headers: Mutations,
    pub per_filter: PerFilter,
    /// How requests are described to rate limits.
    pub rate_limits: RateLimits,
    /// Upstreams are told which attempt it is: `x-envoy-attempt-count`.
    pub tells_attempts: bool,
    pub virtual_host: Arc<str>,
    /// What spans of its requests are called.
    pub decorator: Option<Decorator>,
    /// Statistics of its own, under this name.
    pub stat_prefix: Option<Arc<str>>,
    pub origin: Origin,
    /// What else it says of itself.
    pub metadata: DynamicMetadata,
}

/// `Decorator`: the name of what a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    pub operation: String,
    /// The other side's span is called the same.
    pub propagates: bool,
}

impl Decorator {
    fn from_xds(decorator: &proto::Decorator) -> Self {
        let propagates = decorator.propagate.as_ref().is_none_or(|propagate| propagate.value);
        Self { operation: decorator.operation.clone(), propagates }
    }
}

/// The `rate_limits` of a route and of its virtual host.
#[derive(Debug)]
pub struct RateLimits {
    own: Policy,
    host: Policy,
    /// The host's count whatever a filter says (`include_vh_rate_limits`).
    include_host: bool,
}

/// Whether the virtual host's descriptions are made beside the route's (Envoy's `VhRateLimitsOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OfHost {
    /// Where the route has none of its own.
    #[default]
    Otherwise,
    Include,
    Ignore,
}

impl RateLimits {
    fn of(route: &proto::Route, host: &Policy, at: &At) -> Self {
        // What does not forward is not described.
        let Some(proto::route::Action::Route(forward)) = &route.action else {
            return Self { own: Policy::default(), host: Policy::default(), include_host: false };
        };
        Self {
            own: Policy::from_xds(&forward.rate_limits, "rate_limits", &at.field("route")),
            host: host.clone(),
            include_host: forward.include_vh_rate_limits.is_some_and(|include| include.value),
        }
    }

    /// The descriptors of a request.
    pub fn describe(&self, stage: u32, of_host: OfHost, request: &Described<'_>) -> Vec<Descriptor> {
        let mut out = Vec::new();
        self.own.describe(stage, request, &mut out);
        if self.include_host || of_host == OfHost::Include || of_host == OfHost::Otherwise && self.own.is_empty() {
            self.host.describe(stage, request, &mut out);
        }
        out
    }
}

/// What a request's route is.
#[derive(Debug)]
pub enum Found<'a> {
    Route(&'a Arc<Route>),
    /// The virtual host wants TLS: redirect to https.
    TlsRequired,
    None,
}

impl Route {
    /// What keeps a request from this route; `None` if nothing does.
    pub fn miss(&self, head: &RequestHead, facts: &RouteFacts<'_>) -> Option<Miss<'_>> {
        self.matcher.miss(head, head.path_only(), facts)
    }
}

impl RouteTable {
    pub fn from_xds(config: &proto::RouteConfiguration) -> Result<Self, Vec<ConfigError>> {
        let at = At::resource(&config.name);
        let table = Self::compile(config, &at);
        at.finish(table)
    }

    pub(crate) fn compile(config: &proto::RouteConfiguration, at: &At) -> Option<Self> {
        refuse!(at, config;
            cluster_specifier_plugins, request_mirror_policies, typed_per_filter_config, internal_only_headers,
            ignore_path_parameters_in_path_matching, vhost_header, route_specifiers);
        if let Some(vhds) = &config.vhds {
            discovered(vhds.config_source.as_ref(), &at.field("vhds").field("config_source"));
        }
        let table_request =
            Mutations::of_request(&config.request_headers_to_add, &config.request_headers_to_remove, at);
        let table_response =
            Mutations::of_response(&config.response_headers_to_add, &config.response_headers_to_remove, at);
        let specific_wins = config.most_specific_header_mutations_wins;
        let max_body = u32_or(config.max_direct_response_body_size_bytes.as_ref(), 4096) as usize;
        let mut hosts = HostIndex::default();
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            let at = at.index("virtual_hosts", index);
            let inherited =
                virtual_host::Inherited { request: &table_request, response: &table_response, specific_wins, max_body };
            if let Some(compiled) = VirtualHost::from_xds(host, &inherited, &at) {
                hosts.insert(&host.domains, Arc::new(compiled), &at);
            }
        }
        Some(Self {
            name: config.name.as_str().into(),
            hosts,
            ignore_port: config.ignore_port_in_host_matching,
            on_demand: config.vhds.is_some(),
            fingerprint: xxhash_rust::xxh64::xxh64(&config.encode_to_vec(), 0),
        })
    }

    /// The name of the virtual host to ask for, if none that is there is for this request and others may come.
    pub fn host_to_ask_for(&self, head: &RequestHead) -> Option<String> {
        if !self.on_demand || self.virtual_host(head).is_some() {
            return None;
        }
        let host = if self.ignore_port { without_port(head.host()) } else { head.host() };
        let is_name = !host.is_empty()
            && host.len() <= MAX_HOST
            && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        is_name.then(|| format!("{}/{}", self.name, host.to_ascii_lowercase()))
    }

    /// The virtual host for a request: exact name, longest suffix wildcard, longest prefix wildcard, `*`.
    pub fn virtual_host(&self, head: &RequestHead) -> Option<&Arc<VirtualHost>> {
        self.hosts.find(head.host(), self.ignore_port)
    }

    /// The first route of the request's virtual host that matches.
    pub fn find(&self, head: &RequestHead, facts: &RouteFacts<'_>) -> Found<'_> {
        let Some(host) = self.virtual_host(head) else { return Found::None };
        if host.requires_tls(facts) {
            return Found::TlsRequired;
        }
        let path = head.path_only();
        match host.routes.iter().find(|route| route.matcher.matches(head, path, facts)) {
            Some(route) => Found::Route(route),
            None => Found::None,
        }
    }

    pub fn virtual_hosts(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        self.hosts.iter()
    }
}

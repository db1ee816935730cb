//! HTTP filters: a file each, one enum for all. A filter sees the head of a request before it is routed and may answer it
//! itself. What they add to the answer is said beside: `cors::CorsPolicy::on_response`, `local_rate_limit::Quota`.

pub mod cors;
pub mod dynamic_forward_proxy;
pub mod ext_authz;
pub mod fault;
pub mod grpc_stats;
pub mod jwt_authn;
pub mod local_rate_limit;
pub mod rate_limit;
pub mod rbac;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_proto;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as dynamic_proto;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as authz_proto;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_proto;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats_proto;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_proto;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as limit_proto;
use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3::OnDemand;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as service_proto;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_proto;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use hcm::http_filter::ConfigType;

use dynamic_forward_proxy::{DynamicForwardProxy, HostRewrite};
use ext_authz::ExtAuthz;
use jwt_authn::JwtAuthn;
use local_rate_limit::LocalRateLimit;
use rate_limit::RateLimit;

use super::rbac::RuleSets;
use crate::config::error::{At, refuse};
use crate::config::scalar::{is, open, type_name};
use crate::flags::LocalReply;
use crate::message::RequestHead;

/// A filter of a chain, in its place.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// The name under which routes configure it.
    pub name: Arc<str>,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// Asked, counted and told by who forwards.
    Rbac(Arc<rbac::Rbac>),
    Fault(Arc<fault::Fault>),
    /// Acts only by what routes say.
    Cors,
    /// Answers nothing: who forwards counts as it says.
    GrpcStats(Arc<grpc_stats::GrpcStats>),
    /// Asked and counted by who forwards, who fetches keys for it, too.
    JwtAuthn(Arc<JwtAuthn>),
    /// Asked and counted by who forwards.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// The same; a service is asked.
    RateLimit(Arc<RateLimit>),
    ExtAuthz(Arc<ExtAuthz>),
    /// The name of a request's host is resolved by who forwards.
    DynamicForwardProxy(Arc<DynamicForwardProxy>),
    /// Where no virtual host is for a request, one is asked for: by who routes, before any filter.
    OnDemand,
    Router(RouterOptions),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterOptions {
    pub suppress_envoy_headers: bool,
}

/// What a filter says to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Continue,
    /// Wait so long, then go on to the reply if there is one, else to the next filter.
    Delay(Duration, Option<Box<LocalReply>>),
    Reply(Box<LocalReply>),
}

/// What a route says to filters, by their names.
#[derive(Clone, Debug, Default)]
pub struct PerFilter(foldhash::HashMap<String, Override>);

#[derive(Clone, Debug)]
pub enum Override {
    Disabled,
    Rbac(Option<Arc<rbac::Rbac>>),
    Fault(Arc<fault::Fault>),
    Cors(Arc<cors::CorsPolicy>),
    LocalRateLimit(Arc<LocalRateLimit>),
    RateLimit(Arc<rate_limit::PerRoute>),
    ExtAuthz(Arc<ext_authz::PerRoute>),
    JwtAuthn(jwt_authn::PerRoute),
    DynamicForwardProxy(Option<Arc<HostRewrite>>),
}

impl PerFilter {
    pub(crate) fn from_xds(configs: &HashMap<String, Any>, at: &At) -> Self {
        let mut overrides = foldhash::HashMap::default();
        for (name, any) in configs {
            if let Some(found) = read_override(any, &at.field(name)) {
                overrides.insert(name.clone(), found);
            }
        }
        Self(overrides)
    }

    /// These, and `outer` where these say nothing. CORS policies fill each other's gaps, and an external
    /// authorizer is told what all levels have to say.
    pub(crate) fn over(mut self, outer: &Self) -> Self {
        for (name, value) in &outer.0 {
            match (self.0.get_mut(name), value) {
                (None, _) => drop(self.0.insert(name.clone(), value.clone())),
                (Some(Override::Cors(own)), Override::Cors(outer)) => *own = Arc::new(own.over(outer)),
                (Some(Override::ExtAuthz(own)), Override::ExtAuthz(outer)) => *own = Arc::new(own.over(outer)),
                (Some(_), _) => {}
            }
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said to the filter of that name.
    pub fn get(&self, name: &str) -> Option<&Override> {
        self.0.get(name)
    }
}

fn read_override(any: &Any, at: &At) -> Option<Override> {
    if is::<FilterConfig>(any) {
        let wrapped: FilterConfig = open(any, at)?;
        if wrapped.disabled {
            return Some(Override::Disabled);
        }
        return wrapped.config.as_ref().and_then(|config| read_override(config, &at.field("config")));
    }
    if is::<rbac_proto::RbacPerRoute>(any) {
        let config: rbac_proto::RbacPerRoute = open(any, at)?;
        return match &config.rbac {
            None => Some(Override::Rbac(None)),
            Some(rbac) => {
                rbac::Rbac::from_xds(rbac, &at.field("rbac")).map(|rbac| Override::Rbac(Some(Arc::new(rbac))))
            }
        };
    }
    if is::<fault_proto::HttpFault>(any) {
        let config: fault_proto::HttpFault = open(any, at)?;
        return fault::Fault::from_xds(&config, at).map(|fault| Override::Fault(Arc::new(fault)));
    }
    if is::<cors_proto::CorsPolicy>(any) {
        let config: cors_proto::CorsPolicy = open(any, at)?;
        return cors::CorsPolicy::from_xds(&config, at).map(|policy| Override::Cors(Arc::new(policy)));
    }
    if is::<limit_proto::LocalRateLimit>(any) {
        let config: limit_proto::LocalRateLimit = open(any, at)?;
        return LocalRateLimit::from_xds(&config, true, at).map(|limit| Override::LocalRateLimit(Arc::new(limit)));
    }
    if is::<service_proto::RateLimitPerRoute>(any) {
        let config: service_proto::RateLimitPerRoute = open(any, at)?;
        return Some(Override::RateLimit(Arc::new(rate_limit::PerRoute::from_xds(&config, at))));
    }
    if is::<authz_proto::ExtAuthzPerRoute>(any) {
        let config: authz_proto::ExtAuthzPerRoute = open(any, at)?;
        return ext_authz::PerRoute::from_xds(&config, at).map(|of_route| Override::ExtAuthz(Arc::new(of_route)));
    }
    if is::<jwt_proto::PerRouteConfig>(any) {
        let config: jwt_proto::PerRouteConfig = open(any, at)?;
        return jwt_authn::PerRoute::from_xds(&config, at).map(Override::JwtAuthn);
    }
    if is::<dynamic_proto::PerRouteConfig>(any) {
        let config: dynamic_proto::PerRouteConfig = open(any, at)?;
        return HostRewrite::from_xds(&config, at).map(|rewrite| Override::DynamicForwardProxy(rewrite.map(Arc::new)));
    }
    at.error(format!("{} is not supported", type_name(any)));
    None
}

impl Kind {
    /// The rules in force for a request: a route's in place of the filter's own.
    pub fn access_rules<'a>(&'a self, said: Option<&'a Override>) -> Option<&'a RuleSets> {
        match (self, said) {
            (Self::Rbac(_), Some(Override::Disabled | Override::Rbac(None))) => None,
            (Self::Rbac(_), Some(Override::Rbac(Some(of_route)))) => Some(&of_route.0),
            (Self::Rbac(own), _) => Some(&own.0),
            _ => None,
        }
    }
}

impl HttpFilter {
    /// The chain of a connection manager; the router ends it.
    pub(crate) fn chain(filters: &[hcm::HttpFilter], at: &At) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            let at = at.index("http_filters", index);
            refuse!(at, filter; disabled);
            let Some(ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
                at.field("typed_config").error("is required");
                continue;
            };
            if chain.last().is_some_and(|last| matches!(last.kind, Kind::Router(_))) {
                at.error("stands behind the router and would never run");
            }
            // An optional filter that is not known is left out, as `is_optional` asks.
            if filter.is_optional && !Kind::is_known(any) {
                continue;
            }
            if let Some(kind) = Kind::from_xds(any, &at.field("typed_config")) {
                let counts = |kind: &Kind| matches!(kind, Kind::GrpcStats(_));
                if counts(&kind) && chain.iter().any(|before| counts(&before.kind)) {
                    at.error("is the second grpc_stats: calls would be counted twice");
                }
                chain.push(Self { name: filter.name.as_str().into(), kind });
            }
        }
        if !chain.last().is_some_and(|last| matches!(last.kind, Kind::Router(_))) && !at.has_errors() {
            at.field("http_filters").error("must end in the router");
        }
        chain
    }

    /// Before routing is final: the route is known, its overrides are `said`. Filters that ask others, or count, or say
    /// something to those behind them are for who forwards.
    pub fn on_request(&self, head: &RequestHead, said: Option<&Override>, random: u64) -> Step {
        if matches!(said, Some(Override::Disabled)) {
            return Step::Continue;
        }
        match &self.kind {
            Kind::Fault(own) => match said {
                Some(Override::Fault(of_route)) => of_route.on_request(head, random),
                _ => own.on_request(head, random),
            },
            Kind::Cors => match said {
                Some(Override::Cors(policy)) => policy.on_request(head),
                _ => Step::Continue,
            },
            Kind::Rbac(_)
            | Kind::GrpcStats(_)
            | Kind::LocalRateLimit(_)
            | Kind::RateLimit(_)
            | Kind::ExtAuthz(_)
            | Kind::JwtAuthn(_)
            | Kind::DynamicForwardProxy(_)
            | Kind::OnDemand
            | Kind::Router(_) => Step::Continue,
        }
    }
}

impl Kind {
    fn is_known(any: &Any) -> bool {
        is::<Router>(any)
            || is::<rbac_proto::Rbac>(any)
            || is::<fault_proto::HttpFault>(any)
            || is::<cors_proto::Cors>(any)
            || is::<grpc_stats_proto::FilterConfig>(any)
            || is::<jwt_proto::JwtAuthentication>(any)
            || is::<limit_proto::LocalRateLimit>(any)
            || is::<service_proto::RateLimit>(any)
            || is::<authz_proto::ExtAuthz>(any)
            || is::<dynamic_proto::FilterConfig>(any)
            || is::<OnDemand>(any)
    }

    fn from_xds(any: &Any, at: &At) -> Option<Self> {
        if is::<Router>(any) {
            let router: Router = open(any, at)?;
            refuse!(at, router;
                upstream_log, upstream_http_filters, strict_check_headers, reject_connect_request_early_data,
                respect_expected_rq_timeout);
            return Some(Self::Router(RouterOptions { suppress_envoy_headers: router.suppress_envoy_headers }));
        }
        if is::<rbac_proto::Rbac>(any) {
            let config: rbac_proto::Rbac = open(any, at)?;
            return rbac::Rbac::from_xds(&config, at).map(|rbac| Self::Rbac(Arc::new(rbac)));
        }
        if is::<fault_proto::HttpFault>(any) {
            let config: fault_proto::HttpFault = open(any, at)?;
            return fault::Fault::from_xds(&config, at).map(|fault| Self::Fault(Arc::new(fault)));
        }
        if is::<cors_proto::Cors>(any) {
            return Some(Self::Cors);
        }
        if is::<grpc_stats_proto::FilterConfig>(any) {
            let config: grpc_stats_proto::FilterConfig = open(any, at)?;
            return Some(Self::GrpcStats(Arc::new(grpc_stats::GrpcStats::from_xds(&config, at))));
        }
        if is::<jwt_proto::JwtAuthentication>(any) {
            let config: jwt_proto::JwtAuthentication = open(any, at)?;
            return JwtAuthn::from_xds(&config, at).map(|jwt| Self::JwtAuthn(Arc::new(jwt)));
        }
        if is::<limit_proto::LocalRateLimit>(any) {
            let config: limit_proto::LocalRateLimit = open(any, at)?;
            return LocalRateLimit::from_xds(&config, false, at).map(|limit| Self::LocalRateLimit(Arc::new(limit)));
        }
        if is::<service_proto::RateLimit>(any) {
            let config: service_proto::RateLimit = open(any, at)?;
            return RateLimit::from_xds(&config, at).map(|limit| Self::RateLimit(Arc::new(limit)));
        }
        if is::<authz_proto::ExtAuthz>(any) {
            let config: authz_proto::ExtAuthz = open(any, at)?;
            return ExtAuthz::from_xds(&config, at).map(|authz| Self::ExtAuthz(Arc::new(authz)));
        }
        if is::<dynamic_proto::FilterConfig>(any) {
            let config: dynamic_proto::FilterConfig = open(any, at)?;
            let proxy = DynamicForwardProxy::from_xds(&config, at);
            return proxy.map(|proxy| Self::DynamicForwardProxy(Arc::new(proxy)));
        }
        if is::<OnDemand>(any) {
            let config: OnDemand = open(any, at)?;
            refuse!(at, config; odcds);
            return Some(Self::OnDemand);
        }
        at.error(format!("HTTP filter {} is not supported", type_name(any)));
        None
    }
}

pub(crate) fn fraction(percent: &envoy_types::pb::envoy::r#type::v3::FractionalPercent) -> Share {
    use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
    let of = match percent.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Share { numerator: percent.numerator, of }
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    numerator: u32,
    of: u32,
}

impl Share {
    pub(crate) const NONE: Self = Self { numerator: 0, of: 100 };
    pub(crate) const ALL: Self = Self { numerator: 100, of: 100 };

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        (f64::from(self.numerator) / f64::from(self.of.max(1))).min(1.0)
    }

    pub(super) fn is_never(self) -> bool {
        self.numerator == 0
    }

    pub(super) fn is_always(self) -> bool {
        self.numerator >= self.of
    }

    pub(crate) fn draws(self, random: u64) -> bool {
        random % u64::from(self.of) < u64::from(self.numerator)
    }
}

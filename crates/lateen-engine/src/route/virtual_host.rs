//! Virtual hosts by name, and the conditions of their routes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use http::Method;
use proto::route_match::PathSpecifier;
use regex::Regex;

use super::action::Action;
use super::query::{self, QueryMatcher};
use super::{Decorator, Mutations, RateLimits, Route};
use crate::config::error::{At, refuse};
use crate::config::metadata::Origin;
use crate::config::scalar::bool_or;
use crate::filters::http::PerFilter;
use crate::matching::{HeaderMatcher, MetadataMatcher, strings};
use crate::message::{RequestHead, Scheme};
use crate::metadata::DynamicMetadata;
use crate::rate_limit::descriptor::Policy;

/// What a route may ask besides the request's head.
#[derive(Clone, Copy, Debug)]
pub struct RouteFacts<'a> {
    /// Drawn once for the request.
    pub random: u64,
    /// How the request came in.
    pub scheme: Scheme,
    /// The request came from inside (`x-envoy-internal`).
    pub internal: bool,
    /// What filters said, once they have.
    pub metadata: &'a DynamicMetadata,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    pub routes: Vec<Arc<Route>>,
    tls: RequireTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequireTls {
    No,
    ExternalOnly,
    All,
}

/// What routes have from their table.
pub(super) struct Inherited<'a> {
    pub(super) request: &'a Mutations,
    pub(super) response: &'a Mutations,
    pub(super) specific_wins: bool,
    pub(super) max_body: usize,
}

impl VirtualHost {
    pub(super) fn requires_tls(&self, facts: &RouteFacts<'_>) -> bool {
        facts.scheme == Scheme::Http
            && match self.tls {
                RequireTls::No => false,
                RequireTls::ExternalOnly => !facts.internal,
                RequireTls::All => true,
            }
    }

    pub(super) fn from_xds(host: &proto::VirtualHost, inherited: &Inherited<'_>, at: &At) -> Option<Self> {
        refuse!(at, host;
            matcher, cors, request_body_buffer_limit, route_specifiers, virtual_clusters, include_attempt_count_in_response,
            retry_policy, retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header, request_mirror_policies);
        let request = Mutations::of_request(&host.request_headers_to_add, &host.request_headers_to_remove, at);
        let response = Mutations::of_response(&host.response_headers_to_add, &host.response_headers_to_remove, at);
        let per_filter = PerFilter::from_xds(&host.typed_per_filter_config, &at.field("typed_per_filter_config"));
        let limits = Policy::from_xds(&host.rate_limits, "rate_limits", at);
        let name: Arc<str> = host.name.as_str().into();
        let mut routes = Vec::with_capacity(host.routes.len());
        for (index, route) in host.routes.iter().enumerate() {
            let at = at.index("routes", index);
            refuse!(at, route;
                tracing, per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers);
            let matcher = route.r#match.as_ref().and_then(|on| RouteMatcher::from_xds(on, &at.field("match")));
            if route.r#match.is_none() {
                at.field("match").error("is required");
            }
            let own_request =
                Mutations::of_request(&route.request_headers_to_add, &route.request_headers_to_remove, &at);
            let own_response =
                Mutations::of_response(&route.response_headers_to_add, &route.response_headers_to_remove, &at);
            let own_filters = PerFilter::from_xds(&route.typed_per_filter_config, &at.field("typed_per_filter_config"));
            let own_filters = own_filters.over(&per_filter);
            let action = Action::from_xds(route, &own_filters, inherited.max_body, &at);
            let (Some(matcher), Some(action)) = (matcher, action) else { continue };
            let order = |own: Mutations, host: &Mutations, table: &Mutations| {
                if inherited.specific_wins {
                    Mutations::chain(&[table, host, &own])
                } else {
                    Mutations::chain(&[&own, host, table])
                }
            };
            routes.push(Arc::new(Route {
                name: route.name.as_str().into(),
                matcher,
                action,
                request_headers: order(own_request, &request, inherited.request),
                response_headers: order(own_response, &response, inherited.response),
                per_filter: own_filters,
                rate_limits: RateLimits::of(route, &limits, &at),
                tells_attempts: host.include_request_attempt_count,
                virtual_host: Arc::clone(&name),
                decorator: route.decorator.as_ref().map(Decorator::from_xds),
                stat_prefix: Some(route.stat_prefix.as_str()).filter(|prefix| !prefix.is_empty()).map(Arc::from),
                origin: Origin::from_xds(route.metadata.as_ref()),
                metadata: DynamicMetadata::of_resource(route.metadata.as_ref()),
            }));
        }
        let tls = match host.require_tls() {
            proto::virtual_host::TlsRequirementType::None => RequireTls::No,
            proto::virtual_host::TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
            proto::virtual_host::TlsRequirementType::All => RequireTls::All,
        };
        Some(Self { name, routes, tls })
    }
}

/// Virtual hosts by domain.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: HashMap<String, Arc<VirtualHost>>,
    /// `*.example.com` as `.example.com`, longest first.
    suffixes: Vec<(String, Arc<VirtualHost>)>,
    /// `www.*` as `www.`, longest first.
    prefixes: Vec<(String, Arc<VirtualHost>)>,
    any: Option<Arc<VirtualHost>>,
    all: Vec<Arc<VirtualHost>>,
}

impl HostIndex {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        self.all.iter()
    }

    pub(super) fn insert(&mut self, domains: &[String], host: Arc<VirtualHost>, at: &At) {
        if domains.is_empty() {
            at.field("domains").error("at least one is required");
        }
        for domain in domains {
            let domain = domain.to_ascii_lowercase();
            let known = if domain == "*" {
                self.any.replace(Arc::clone(&host)).is_some()
            } else if let Some(suffix) = domain.strip_prefix('*') {
                insert_by_length(&mut self.suffixes, suffix, &host)
            } else if let Some(prefix) = domain.strip_suffix('*') {
                insert_by_length(&mut self.prefixes, prefix, &host)
            } else {
                self.exact.insert(domain.clone(), Arc::clone(&host)).is_some()
            };
            if known {
                at.field("domains").error(format!("`{domain}` stands here or in an earlier virtual host already"));
            }
        }
        self.all.push(host);
    }

    pub(super) fn find(&self, host: &str, ignore_port: bool) -> Option<&Arc<VirtualHost>> {
        let host = if ignore_port { without_port(host) } else { host };
        // Hosts are written in lower case nearly always.
        let folded;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            folded = host.to_ascii_lowercase();
            &folded
        } else {
            host
        };
        let longer = |part: &str| host.len() > part.len();
        self.exact
            .get(host)
            .or_else(|| {
                self.suffixes.iter().find(|(suffix, _)| longer(suffix) && host.ends_with(suffix)).map(|(_, host)| host)
            })
            .or_else(|| {
                self.prefixes
                    .iter()
                    .find(|(prefix, _)| longer(prefix) && host.starts_with(prefix))
                    .map(|(_, host)| host)
            })
            .or(self.any.as_ref())
    }
}

fn insert_by_length(list: &mut Vec<(String, Arc<VirtualHost>)>, part: &str, host: &Arc<VirtualHost>) -> bool {
    let known = list.iter().any(|(known, _)| known == part);
    let place = list.iter().position(|(known, _)| known.len() < part.len()).unwrap_or(list.len());
    list.insert(place, (part.to_owned(), Arc::clone(host)));
    known
}

/// The host without `:port`; an IPv6 address keeps its brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()) && !host[..colon].ends_with(':') => {
            if host.starts_with('[') && !host[..colon].ends_with(']') {
                host
            } else {
                &host[..colon]
            }
        }
        _ => host,
    }
}

/// `RouteMatch`.
#[derive(Debug)]
pub(crate) struct RouteMatcher {
    path: PathMatcher,
    fraction: Option<Fraction>,
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    metadata: Vec<MetadataMatcher>,
    grpc: bool,
}

#[derive(Debug)]
pub enum PathMatcher {
    Prefix(String, CaseSensitive),
    Exact(String, CaseSensitive),
    /// The prefix, and then the end or a slash.
    Segments(String, CaseSensitive),
    Regex(Regex),
    /// Requests to connect, which have no path and match nothing else.
    Connect,
}

type CaseSensitive = bool;

#[derive(Debug)]
struct Fraction {
    numerator: u64,
    denominator: u64,
}

impl RouteMatcher {
    pub(crate) fn from_xds(on: &proto::RouteMatch, at: &At) -> Option<Self> {
        refuse!(at, on; tls_context, filter_state, cookies);
        let sensitive = bool_or(on.case_sensitive.as_ref(), true);
        let fold = |text: &str| if sensitive { text.to_owned() } else { text.to_ascii_lowercase() };
        let path = match on.path_specifier.as_ref() {
            Some(PathSpecifier::Prefix(text)) => PathMatcher::Prefix(fold(text), sensitive),
            Some(PathSpecifier::Path(text)) => PathMatcher::Exact(fold(text), sensitive),
            Some(PathSpecifier::PathSeparatedPrefix(text)) => {
                if text.ends_with('/') || text.contains(['?', '#']) || !text.starts_with('/') {
                    at.field("path_separated_prefix")
                        .error("must start with a slash, not end in one, and have no ? or #");
                }
                PathMatcher::Segments(fold(text), sensitive)
            }
            Some(PathSpecifier::SafeRegex(regex)) => {
                PathMatcher::Regex(strings::whole(&regex.regex, &at.field("safe_regex"))?)
            }
            Some(PathSpecifier::ConnectMatcher(_)) => PathMatcher::Connect,
            Some(PathSpecifier::PathMatchPolicy(_)) => {
                at.refuse_if("path_match_policy", true);
                return None;
            }
            None => {
                at.error("needs prefix, path, path_separated_prefix, safe_regex or connect_matcher");
                return None;
            }
        };
        let fraction =
            on.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value.as_ref()).map(|percent| Fraction {
                numerator: percent.numerator.into(),
                denominator: match percent.denominator() {
                    DenominatorType::Hundred => 100,
                    DenominatorType::TenThousand => 10_000,
                    DenominatorType::Million => 1_000_000,
                },
            });
        let header = |(index, matcher)| HeaderMatcher::from_xds(matcher, &at.index("headers", index));
        let query = |(index, matcher)| QueryMatcher::from_xds(matcher, &at.index("query_parameters", index));
        let metadata = |(index, matcher)| MetadataMatcher::from_xds(matcher, &at.index("dynamic_metadata", index));
        Some(Self {
            path,
            fraction,
            headers: on.headers.iter().enumerate().map(header).collect::<Option<_>>()?,
            query: on.query_parameters.iter().enumerate().map(query).collect::<Option<_>>()?,
            metadata: on.dynamic_metadata.iter().enumerate().map(metadata).collect::<Option<_>>()?,
            grpc: on.grpc.is_some(),
        })
    }

    /// The first condition that a request does not meet; `None` if it meets all. `path` is the head's, without its query.
    pub(super) fn miss(&self, head: &RequestHead, path: &str, facts: &RouteFacts<'_>) -> Option<Miss<'_>> {
        if !self.path.matches(path, head) {
            return Some(Miss::Path(&self.path));
        }
        if self.fraction.as_ref().is_some_and(|fraction| facts.random % fraction.denominator >= fraction.numerator) {
            return Some(Miss::Share);
        }
        if self.grpc && !head.is_grpc() {
            return Some(Miss::Grpc);
        }
        if let Some(header) = self.headers.iter().find(|matcher| !matcher.matches(head)) {
            return Some(Miss::Header(header));
        }
        if !self.query.is_empty()
            && let Some(parameter) = query::first_missed(&self.query, head.query().unwrap_or_default())
        {
            return Some(Miss::Query(parameter));
        }
        let unmet = self.metadata.iter().any(|matcher| !matcher.matches(facts.metadata));
        unmet.then_some(Miss::Metadata)
    }

    #[inline]
    pub(crate) fn matches(&self, head: &RequestHead, path: &str, facts: &RouteFacts<'_>) -> bool {
        self.miss(head, path, facts).is_none()
    }
}

/// What keeps a request from a route: the first of its conditions that does not hold, in the order in which they are tried.
#[derive(Clone, Copy, Debug)]
pub enum Miss<'a> {
    Path(&'a PathMatcher),
    /// The route is for a share of the requests.
    Share,
    Grpc,
    Header(&'a HeaderMatcher),
    Query(&'a QueryMatcher),
    /// What filters said of the request.
    Metadata,
}

/// For people, as what the route asks for: `the header x is \`y\``.
impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Share => f.write_str("only a share of the requests"),
            Self::Grpc => f.write_str("only gRPC"),
            Self::Header(header) => header.fmt(f),
            Self::Query(parameter) => parameter.fmt(f),
            Self::Metadata => f.write_str("what filters say of the request, such as claims of its token"),
        }
    }
}

/// For people: `the path begins with \`/x\``.
impl fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(text, _) => write!(f, "the path begins with `{text}`"),
            Self::Exact(text, _) => write!(f, "the path is `{text}`"),
            Self::Segments(text, _) => write!(f, "the path is `{text}` or lies below it"),
            Self::Regex(regex) => write!(f, "the path matches `{}`", strings::written(regex)),
            Self::Connect => f.write_str("the method is `CONNECT`"),
        }
    }
}

impl PathMatcher {
    fn matches(&self, path: &str, head: &RequestHead) -> bool {
        match self {
            Self::Connect => head.method == Method::CONNECT,
            _ if path.is_empty() => false,
            Self::Regex(regex) => regex.is_match(path),
            Self::Prefix(text, sensitive) => prefix_len(path, text, *sensitive).is_some(),
            Self::Exact(text, sensitive) => path.len() == text.len() && prefix_len(path, text, *sensitive).is_some(),
            Self::Segments(text, sensitive) => prefix_len(path, text, *sensitive)
                .is_some_and(|end| matches!(path.as_bytes().get(end), None | Some(b'/'))),
        }
    }
}

/// The length of `prefix` if `path` starts with it.
fn prefix_len(path: &str, prefix: &str, sensitive: bool) -> Option<usize> {
    let start = path.as_bytes().get(..prefix.len())?;
    let same = if sensitive { start == prefix.as_bytes() } else { start.eq_ignore_ascii_case(prefix.as_bytes()) };
    same.then_some(prefix.len())
}

impl Route {
    /// The part of `path` that the route matched, which a prefix rewrite replaces.
    pub fn matched_prefix(&self, path: &str) -> usize {
        match &self.matcher.path {
            PathMatcher::Prefix(text, _) | PathMatcher::Segments(text, _) | PathMatcher::Exact(text, _) => {
                text.len().min(path.len())
            }
            // Envoy: an expression matches the whole path.
            PathMatcher::Regex(_) => path.len(),
            PathMatcher::Connect => 0,
        }
    }
}

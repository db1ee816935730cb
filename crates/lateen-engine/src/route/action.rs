//! What a route does: forward, redirect, or answer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use http::{HeaderName, StatusCode};
use proto::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use regex::Regex;

use super::mirror::Mirror;
use super::redirect::Redirect;
use super::retry_policy::RetryPolicy;
use super::stream_duration::MaxStreamDuration;
use super::upgrade::Upgrades;
use super::{Mutations, Route};
use crate::config::error::{At, refuse};
use crate::config::scalar::{bool_or, duration};
use crate::filters::http::PerFilter;
use crate::matching::strings;
use crate::message::RequestHead;

#[derive(Debug)]
pub enum Action {
    Forward(Box<Forward>),
    Redirect(Redirect),
    Direct(DirectResponse),
    /// The route exists for other filters; nothing is forwarded.
    NonForwarding,
}

#[derive(Debug)]
pub struct DirectResponse {
    pub status: StatusCode,
    pub body: Bytes,
}

#[derive(Debug)]
pub struct Forward {
    pub target: ClusterTarget,
    pub not_found_status: StatusCode,
    /// For the whole exchange; none: without limit. Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// Overrides the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// None: `grpc-timeout` is not looked at; zero: taken as it is.
    pub max_grpc_timeout: Option<Duration>,
    pub grpc_timeout_offset: Option<Duration>,
    /// For the whole exchange from its beginning, in place of all those.
    pub max_stream: Option<MaxStreamDuration>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub hash: Vec<HashPolicy>,
    pub path: PathRewrite,
    pub host: HostRewrite,
    pub append_x_forwarded_host: bool,
    /// Upgrades allowed or forbidden here, over what the connection manager says.
    pub upgrades: Upgrades,
    pub high_priority: bool,
    pub mirrors: Vec<Mirror>,
}

#[derive(Debug)]
pub enum ClusterTarget {
    Single(Arc<str>),
    Weighted {
        clusters: Vec<WeightedCluster>,
        total: u64,
    },
    /// The cluster that this request header names.
    Header(HeaderName),
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
    pub request_headers: Mutations,
    pub response_headers: Mutations,
    /// What is said to filters for this cluster; none: what the route says.
    pub per_filter: Option<PerFilter>,
    pub host: Option<Bytes>,
}

#[derive(Debug)]
pub enum PathRewrite {
    None,
    Prefix(String),
    Regex(RegexRewrite),
}

#[derive(Debug)]
pub enum HostRewrite {
    None,
    Literal(Bytes),
    /// The chosen host's own name.
    Auto,
    Header(HeaderName),
}

#[derive(Debug)]
pub struct RegexRewrite {
    pattern: Regex,
    substitution: String,
}

#[derive(Debug)]
pub struct HashPolicy {
    source: HashSource,
    terminal: bool,
}

#[derive(Debug)]
enum HashSource {
    Header(HeaderName),
    Cookie { name: String, ttl: Option<Duration>, path: String, attributes: Vec<(String, String)> },
    SourceIp,
    Query(String),
}

/// What a request's hash policies made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHash {
    pub hash: Option<u64>,
    /// A cookie to set on the answer, so that the client comes back with it.
    pub set_cookie: Option<String>,
}

/// The cluster chosen for a request.
#[derive(Debug)]
pub struct Chosen<'a> {
    pub cluster: Cow<'a, str>,
    pub weighted: Option<&'a WeightedCluster>,
}

impl Action {
    pub(super) fn from_xds(route: &proto::Route, outer: &PerFilter, max_body: usize, at: &At) -> Option<Self> {
        match route.action.as_ref() {
            Some(proto::route::Action::Route(forward)) => {
                Forward::from_xds(forward, outer, &at.field("route")).map(|forward| Self::Forward(Box::new(forward)))
            }
            Some(proto::route::Action::Redirect(redirect)) => {
                Redirect::from_xds(redirect, &at.field("redirect")).map(Self::Redirect)
            }
            Some(proto::route::Action::DirectResponse(direct)) => {
                direct_response(direct, max_body, &at.field("direct_response"))
            }
            Some(proto::route::Action::NonForwardingAction(_)) => Some(Self::NonForwarding),
            Some(proto::route::Action::FilterAction(_)) => {
                at.refuse_if("filter_action", true);
                None
            }
            None => {
                at.error("needs route, redirect or direct_response");
                None
            }
        }
    }
}

fn direct_response(direct: &proto::DirectResponseAction, max_body: usize, at: &At) -> Option<Action> {
    refuse!(at, direct; body_format);
    let status = u16::try_from(direct.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status.filter(|status| (200..600).contains(&status.as_u16())) else {
        at.field("status").error("must be from 200 to 599");
        return None;
    };
    let body = match &direct.body {
        None => Bytes::new(),
        Some(source) => body(source, &at.field("body"))?,
    };
    if body.len() > max_body {
        at.field("body").error(format!("has {} bytes; max_direct_response_body_size_bytes is {max_body}", body.len()));
    }
    Some(Action::Direct(DirectResponse { status, body }))
}

fn body(source: &DataSource, at: &At) -> Option<Bytes> {
    match source.specifier.as_ref() {
        Some(data_source::Specifier::InlineString(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Some(data_source::Specifier::InlineBytes(bytes)) => Some(Bytes::copy_from_slice(bytes)),
        None => Some(Bytes::new()),
        Some(_) => {
            at.error("must be an inline_string or inline_bytes");
            None
        }
    }
}

impl Forward {
    fn from_xds(route: &proto::RouteAction, outer: &PerFilter, at: &At) -> Option<Self> {
        refuse!(at, route;
            metadata_match, retry_policy_typed_config, hedge_policy, internal_redirect_policy,
            internal_redirect_action, max_internal_redirects, early_data_policy, path_rewrite_policy, path_rewrite, cors, flush_timeout);
        let refused = route.regex_rewrite.is_some() && !route.prefix_rewrite.is_empty();
        if refused {
            at.error("prefix_rewrite and regex_rewrite exclude each other");
        }
        let path = match (&route.regex_rewrite, route.prefix_rewrite.as_str()) {
            (Some(regex), _) => PathRewrite::Regex(RegexRewrite::from_xds(regex, &at.field("regex_rewrite"))?),
            (None, "") => PathRewrite::None,
            (None, prefix) => PathRewrite::Prefix(prefix.to_owned()),
        };
        let timeout = duration(route.timeout.as_ref(), &at.field("timeout")).unwrap_or(Duration::from_secs(15));
        let (max_grpc, offset) = (route.max_grpc_timeout.as_ref(), route.grpc_timeout_offset.as_ref());
        let retry = match &route.retry_policy {
            Some(policy) => Some(Arc::new(RetryPolicy::from_xds(policy, &at.field("retry_policy"))?)),
            None => None,
        };
        Some(Self {
            target: target(route, outer, at)?,
            not_found_status: match route.cluster_not_found_response_code {
                1 => StatusCode::NOT_FOUND,
                2 => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
            idle_timeout: duration(route.idle_timeout.as_ref(), &at.field("idle_timeout")),
            max_grpc_timeout: duration(max_grpc, &at.field("max_grpc_timeout")),
            grpc_timeout_offset: duration(offset, &at.field("grpc_timeout_offset")),
            max_stream: route
                .max_stream_duration
                .as_ref()
                .map(|config| MaxStreamDuration::from_xds(config, &at.field("max_stream_duration"))),
            retry,
            hash: hash_policies(&route.hash_policy, at),
            path,
            host: host_rewrite(route, at)?,
            append_x_forwarded_host: route.append_x_forwarded_host,
            upgrades: Upgrades::from_xds(&route.upgrade_configs, at),
            high_priority: route.priority == 1,
            mirrors: mirrors(&route.request_mirror_policies, at),
        })
    }

    /// The cluster for a request that drew `random`; none where a header should name it and does not.
    pub fn choose(&self, head: &RequestHead, random: u64) -> Option<Chosen<'_>> {
        match &self.target {
            ClusterTarget::Single(name) => Some(Chosen { cluster: Cow::Borrowed(name), weighted: None }),
            ClusterTarget::Header(name) => {
                let value = head.headers.get(name)?.to_str().ok().filter(|name| !name.is_empty())?;
                Some(Chosen { cluster: Cow::Owned(value.to_owned()), weighted: None })
            }
            ClusterTarget::Weighted { clusters, total } => {
                let mut left = random % total;
                let drawn = clusters.iter().find(|cluster| {
                    let weight = u64::from(cluster.weight);
                    let hit = left < weight;
                    left = left.saturating_sub(weight);
                    hit
                })?;
                Some(Chosen { cluster: Cow::Borrowed(&drawn.name), weighted: Some(drawn) })
            }
        }
    }

    /// What is said to filters for the cluster that a request which drew `random` goes to, where that has its own word.
    pub fn per_filter(&self, head: &RequestHead, random: u64) -> Option<&PerFilter> {
        match &self.target {
            ClusterTarget::Weighted { .. } => self.choose(head, random)?.weighted?.per_filter.as_ref(),
            ClusterTarget::Single(_) | ClusterTarget::Header(_) => None,
        }
    }

    /// The new path and query where the route rewrites them, which may be the old ones. `route` is the route this action
    /// belongs to.
    pub fn rewritten(&self, route: &Route, head: &RequestHead) -> Option<String> {
        let path = head.path_only();
        let rest = &head.target()[path.len()..];
        match &self.path {
            // CONNECT has none.
            _ if path.is_empty() => None,
            PathRewrite::None => None,
            PathRewrite::Prefix(new) => Some(format!("{new}{}{rest}", &path[route.matched_prefix(path)..])),
            PathRewrite::Regex(regex) => Some(regex.apply(path).into_owned() + rest),
        }
    }

    /// The request's hash by the route's policies, combined as Envoy does.
    pub fn hash(&self, head: &RequestHead, source: IpAddr, random: u64) -> RequestHash {
        let mut result = RequestHash::default();
        for policy in &self.hash {
            if let Some(hash) = policy.of(head, source, random, &mut result.set_cookie) {
                result.hash = Some(result.hash.map_or(hash, |before| before.rotate_left(1) ^ hash));
                if policy.terminal {
                    break;
                }
            }
        }
        result
    }
}

fn mirrors(policies: &[proto::route_action::RequestMirrorPolicy], at: &At) -> Vec<Mirror> {
    let read = |(index, policy)| Mirror::from_xds(policy, &at.index("request_mirror_policies", index));
    policies.iter().enumerate().filter_map(read).collect()
}

fn target(route: &proto::RouteAction, outer: &PerFilter, at: &At) -> Option<ClusterTarget> {
    match route.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => Some(ClusterTarget::Single(name.as_str().into())),
        Some(ClusterSpecifier::ClusterHeader(name)) => match HeaderName::try_from(name.as_str()) {
            Ok(name) => Some(ClusterTarget::Header(name)),
            Err(_) => {
                at.field("cluster_header").error(format!("`{name}` is no header name"));
                None
            }
        },
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted_clusters(weighted, outer, &at.field("weighted_clusters"))
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            at.refuse_if("cluster_specifier_plugin", true);
            None
        }
        None => {
            at.error("names no cluster");
            None
        }
    }
}

fn weighted_clusters(weighted: &proto::WeightedCluster, outer: &PerFilter, at: &At) -> Option<ClusterTarget> {
    refuse!(at, weighted; runtime_key_prefix, random_value_specifier);
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (index, cluster) in weighted.clusters.iter().enumerate() {
        let at = at.index("clusters", index);
        refuse!(at, cluster; cluster_header, metadata_match);
        let host = cluster.host_rewrite_specifier.as_ref().map(|specifier| match specifier {
            proto::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) => {
                Bytes::copy_from_slice(host.as_bytes())
            }
        });
        clusters.push(WeightedCluster {
            name: cluster.name.as_str().into(),
            weight: cluster.weight.as_ref().map_or(0, |weight| weight.value),
            request_headers: Mutations::of_request(
                &cluster.request_headers_to_add,
                &cluster.request_headers_to_remove,
                &at,
            ),
            response_headers: Mutations::of_response(
                &cluster.response_headers_to_add,
                &cluster.response_headers_to_remove,
                &at,
            ),
            per_filter: Some(PerFilter::from_xds(
                &cluster.typed_per_filter_config,
                &at.field("typed_per_filter_config"),
            ))
            .filter(|own| !own.is_empty())
            .map(|own| own.over(outer)),
            host,
        });
    }
    let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 {
        at.error("the weights add up to nothing");
        return None;
    }
    Some(ClusterTarget::Weighted { clusters, total })
}

fn host_rewrite(route: &proto::RouteAction, at: &At) -> Option<HostRewrite> {
    Some(match route.host_rewrite_specifier.as_ref() {
        None => HostRewrite::None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            HostRewrite::Literal(Bytes::copy_from_slice(host.as_bytes()))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => {
            if bool_or(Some(auto), false) {
                HostRewrite::Auto
            } else {
                HostRewrite::None
            }
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => match HeaderName::try_from(name.as_str()) {
            Ok(name) => HostRewrite::Header(name),
            Err(_) => {
                at.field("host_rewrite_header").error(format!("`{name}` is no header name"));
                return None;
            }
        },
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            at.refuse_if("host_rewrite_path_regex", true);
            return None;
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            at.refuse_if("host_rewrite", true);
            return None;
        }
    })
}

impl RegexRewrite {
    /// Envoy's substitutions are RE2's: `\1` is the first group, `\0` the whole match, `\\` a backslash.
    pub(super) fn from_xds(rewrite: &RegexMatchAndSubstitute, at: &At) -> Option<Self> {
        let Some(pattern) = &rewrite.pattern else {
            at.field("pattern").error("is required");
            return None;
        };
        let pattern = strings::search(&pattern.regex, &at.field("pattern"))?;
        let mut substitution = String::new();
        let mut characters = rewrite.substitution.chars();
        while let Some(character) = characters.next() {
            match (character, if character == '\\' { characters.next() } else { None }) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    if digit.to_digit(10).is_none_or(|group| group as usize >= pattern.captures_len()) {
                        at.field("substitution").error(format!("the pattern has no group {digit}"));
                        return None;
                    }
                    substitution.push_str(&format!("${{{digit}}}"));
                }
                ('\\', Some('\\')) => substitution.push('\\'),
                ('\\', _) => {
                    at.field("substitution").error("a backslash stands before a digit or another backslash");
                    return None;
                }
                ('$', _) => substitution.push_str("$$"),
                (other, _) => substitution.push(other),
            }
        }
        Some(Self { pattern, substitution })
    }

    /// All matches replaced.
    pub(super) fn apply<'a>(&self, path: &'a str) -> Cow<'a, str> {
        self.pattern.replace_all(path, self.substitution.as_str())
    }
}

fn hash_policies(policies: &[proto::route_action::HashPolicy], at: &At) -> Vec<HashPolicy> {
    let read = |(index, policy): (usize, &proto::route_action::HashPolicy)| {
        let source = hash_source(policy, &at.index("hash_policy", index))?;
        Some(HashPolicy { source, terminal: policy.terminal })
    };
    policies.iter().enumerate().filter_map(read).collect()
}

fn hash_source(policy: &proto::route_action::HashPolicy, at: &At) -> Option<HashSource> {
    use proto::route_action::hash_policy::PolicySpecifier;
    Some(match policy.policy_specifier.as_ref() {
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            refuse!(at, header; regex_rewrite);
            match HeaderName::try_from(header.header_name.as_str()) {
                Ok(name) => HashSource::Header(name),
                Err(_) => {
                    at.field("header_name").error(format!("`{}` is no header name", header.header_name));
                    return None;
                }
            }
        }
        Some(PolicySpecifier::Cookie(cookie)) => HashSource::Cookie {
            name: cookie.name.clone(),
            ttl: duration(cookie.ttl.as_ref(), &at.field("cookie.ttl")),
            path: cookie.path.clone(),
            attributes: cookie.attributes.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
        },
        Some(PolicySpecifier::ConnectionProperties(properties)) => {
            if !properties.source_ip {
                at.field("connection_properties.source_ip").error("must be true");
            }
            HashSource::SourceIp
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => HashSource::Query(parameter.name.clone()),
        Some(PolicySpecifier::FilterState(_)) => {
            at.refuse_if("filter_state", true);
            return None;
        }
        None => {
            at.error("is empty");
            return None;
        }
    })
}

impl HashPolicy {
    fn of(&self, head: &RequestHead, source: IpAddr, random: u64, set_cookie: &mut Option<String>) -> Option<u64> {
        let hash = |text: &[u8]| xxhash_rust::xxh64::xxh64(text, 0);
        match &self.source {
            HashSource::Header(name) if *name == http::header::HOST => Some(hash(&head.authority)),
            HashSource::Header(name) => {
                // Several values hash alike in any order; the hash of each is the seed of the next.
                let mut values: Vec<&[u8]> = head.headers.get_all(name).map(http::HeaderValue::as_bytes).collect();
                values.sort_unstable();
                let chained = |seed, value: &&[u8]| xxhash_rust::xxh64::xxh64(value, seed);
                (!values.is_empty()).then(|| values.iter().fold(0, chained))
            }
            HashSource::SourceIp => Some(hash(source.to_string().as_bytes())),
            HashSource::Query(name) => {
                let mut pairs = head.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs.find(|(known, _)| known == name).map(|(_, value)| hash(value.as_bytes()))
            }
            HashSource::Cookie { name, ttl, path, attributes } => {
                if let Some(value) = cookie(head, name) {
                    return Some(hash(value.as_bytes()));
                }
                // Only a policy with a lifetime, be it zero, hands out cookies.
                let ttl = (*ttl)?;
                let value = format!("{random:016x}");
                let mut text = format!("{name}=\"{value}\"");
                if !ttl.is_zero() {
                    text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
                }
                if !path.is_empty() {
                    text.push_str(&format!("; Path={path}"));
                }
                for (name, value) in attributes {
                    text.push_str(&if value.is_empty() { format!("; {name}") } else { format!("; {name}={value}") });
                }
                text.push_str("; HttpOnly");
                *set_cookie = Some(text);
                Some(hash(value.as_bytes()))
            }
        }
    }
}

fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let all = head.headers.get_all(&http::header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
}

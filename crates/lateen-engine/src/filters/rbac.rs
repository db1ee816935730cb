//! `envoy.config.rbac.v3.RBAC`: permissions and principals, compiled and evaluated.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher;
use ipnet::IpNet;
use proto::permission::Rule;
use proto::principal::Identifier;

use crate::config::error::{At, refuse};
use crate::config::metadata::Value;
use crate::matching::{HeaderMatcher, MetadataMatcher, StringMatcher, addresses};
use crate::message::{Headers, RequestHead};
use crate::metadata::DynamicMetadata;

/// The names in a client's certificate, proven by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub subject: String,
}

impl PeerNames {
    /// Envoy's order: URI names, then DNS names, then the subject.
    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        if !self.uri_sans.is_empty() && self.uri_sans.iter().any(|name| matches(name)) {
            return true;
        }
        if !self.dns_sans.is_empty() && self.dns_sans.iter().any(|name| matches(name)) {
            return true;
        }
        matches(&self.subject)
    }
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// None on a TCP connection.
    pub head: Option<&'a RequestHead>,
    /// Where the client went.
    pub destination: SocketAddr,
    /// The peer of the socket.
    pub direct_remote: IpAddr,
    /// The client behind trusted proxies.
    pub remote: IpAddr,
    /// None without a client certificate.
    pub peer: Option<&'a PeerNames>,
    pub sni: Option<&'a str>,
    /// What filters before this one said.
    pub metadata: &'a DynamicMetadata,
}

/// The result, and the policy that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub policy: Option<Arc<str>>,
}

impl Verdict {
    pub fn allowed() -> Self {
        Self { allowed: true, policy: None }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%` for a denial.
    pub fn details(&self) -> String {
        let policy: String =
            self.policy.as_deref().unwrap_or("none").chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

#[derive(Debug)]
pub struct Rules {
    action: Action,
    /// By name, as Envoy evaluates them.
    policies: Vec<(Arc<str>, Policy)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    /// Never denies.
    Log,
}

#[derive(Debug)]
struct Policy {
    permissions: Vec<Permission>,
    principals: Vec<Principal>,
}

#[derive(Debug)]
enum Permission {
    Any,
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Header(HeaderMatcher),
    Path(StringMatcher),
    DestinationIp(IpNet),
    DestinationPort(u16),
    /// From the first to before the last.
    DestinationPortRange(i32, i32),
    Sni(StringMatcher),
    Metadata(MetadataMatcher),
    Never,
}

#[derive(Debug)]
enum Principal {
    Any,
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    /// A client certificate, with a name that matches.
    Authenticated(Option<StringMatcher>),
    DirectRemoteIp(IpNet),
    RemoteIp(IpNet),
    Header(HeaderMatcher),
    Path(StringMatcher),
    Metadata(MetadataMatcher),
    Never,
}

/// Both sets of rules of a filter, and under which names its verdicts are told.
#[derive(Debug)]
pub struct RuleSets {
    rules: Option<Rules>,
    /// Tried, and told of, and not enforced.
    shadow: Option<Rules>,
    /// Stands before the names of what is counted and said of `rules`.
    pub prefix: String,
    /// The same, of `shadow`.
    pub shadow_prefix: String,
    /// Each policy is counted, too.
    pub tracks_policies: bool,
}

/// What both sets of rules say; none where there are no such rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    pub enforced: Option<Verdict>,
    pub shadow: Option<Verdict>,
    /// The rules only ask whether the request is to be logged; whether it is.
    pub logged: Option<bool>,
}

impl RuleSets {
    /// # Errors
    /// None where the rules are not understood, which was told.
    pub(crate) fn from_xds(
        (rules, shadow): (Option<&proto::Rbac>, Option<&proto::Rbac>),
        (prefix, shadow_prefix): (&str, &str),
        tracks_policies: bool,
        at: &At,
    ) -> Option<Self> {
        let read = |rules: Option<&_>, name: &str| match rules {
            None => Some(None),
            Some(rules) => Rules::from_xds(rules, &at.field(name)).map(Some),
        };
        let (rules, shadow) = (read(rules, "rules"), read(shadow, "shadow_rules"));
        Some(Self {
            rules: rules?,
            shadow: shadow?,
            prefix: prefix.to_owned(),
            shadow_prefix: shadow_prefix.to_owned(),
            tracks_policies,
        })
    }

    pub fn decide(&self, subject: &Subject<'_>) -> Verdicts {
        let shadow = self.shadow.as_ref().map(|rules| rules.decide(subject));
        let Some(rules) = &self.rules else { return Verdicts { shadow, ..Verdicts::default() } };
        let verdict = rules.decide(subject);
        let logged = (rules.action == Action::Log).then_some(verdict.policy.is_some());
        Verdicts { enforced: Some(verdict), shadow, logged }
    }

    /// Says what was decided to filters behind and to logs, under Envoy's names: `filter` is the name of the filter's kind.
    pub fn tell(&self, verdicts: &Verdicts, filter: &str, metadata: &mut DynamicMetadata) {
        if let Some(verdict) = &verdicts.shadow {
            let result = if verdict.allowed { "allowed" } else { "denied" };
            let said =
                |name: &str, text: &str| (format!("{}{name}", self.shadow_prefix), Value::String(text.to_owned()));
            let policy = verdict.policy.as_deref().map(|policy| said("shadow_effective_policy_id", policy));
            metadata.merge(filter, std::iter::once(said("shadow_engine_result", result)).chain(policy).collect());
        }
        if let Some(logged) = verdicts.logged {
            metadata.merge("envoy.common", [("access_log_hint".to_owned(), Value::Bool(logged))].into());
        }
    }

    /// The policies of the rules in force and of those that are tried.
    pub fn policies(&self) -> [Vec<&Arc<str>>; 2] {
        [&self.rules, &self.shadow]
            .map(|rules| rules.iter().flat_map(|rules| &rules.policies).map(|(name, _)| name).collect())
    }

    /// Which of those match a request or connection, whether or not one before them decides.
    pub fn matching(&self, subject: &Subject<'_>) -> [Vec<&Arc<str>>; 2] {
        [&self.rules, &self.shadow].map(|rules| {
            let policies = rules.iter().flat_map(|rules| &rules.policies);
            policies.filter(|(_, policy)| policy.matches(subject)).map(|(name, _)| name).collect()
        })
    }

    pub fn has_shadow(&self) -> bool {
        self.shadow.is_some()
    }
}

impl Verdicts {
    /// Nothing stands against the request or connection.
    pub fn allows(&self) -> bool {
        self.enforced.as_ref().is_none_or(|verdict| verdict.allowed)
    }
}

impl Rules {
    pub fn from_xds(rules: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, rules; audit_logging_options);
        let action = match rules.action() {
            proto::rbac::Action::Allow => Action::Allow,
            proto::rbac::Action::Deny => Action::Deny,
            proto::rbac::Action::Log => Action::Log,
        };
        let mut policies = Vec::with_capacity(rules.policies.len());
        for (name, policy) in &rules.policies {
            let at = at.field(&format!("policies[{name}]"));
            refuse!(at, policy; condition, checked_condition, cel_config);
            policies.push((Arc::<str>::from(name.as_str()), Policy::from_xds(policy, &at)?));
        }
        policies.sort_by(|(left, _), (right, _)| left.cmp(right));
        Some(Self { action, policies })
    }

    pub fn decide(&self, subject: &Subject<'_>) -> Verdict {
        let matched =
            self.policies.iter().find(|(_, policy)| policy.matches(subject)).map(|(name, _)| Arc::clone(name));
        let allowed = match self.action {
            Action::Allow => matched.is_some(),
            Action::Deny => matched.is_none(),
            Action::Log => true,
        };
        Verdict { allowed, policy: matched }
    }
}

impl Policy {
    fn from_xds(policy: &proto::Policy, at: &At) -> Option<Self> {
        if policy.permissions.is_empty() || policy.principals.is_empty() {
            at.error("needs at least one permission and one principal");
        }
        let permission = |(index, permission)| Permission::from_xds(permission, &at.index("permissions", index));
        let principal = |(index, principal)| Principal::from_xds(principal, &at.index("principals", index));
        Some(Self {
            permissions: policy.permissions.iter().enumerate().map(permission).collect::<Option<_>>()?,
            principals: policy.principals.iter().enumerate().map(principal).collect::<Option<_>>()?,
        })
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.matches(subject))
            && self.principals.iter().any(|principal| principal.matches(subject))
    }
}

impl Permission {
    fn from_xds(permission: &proto::Permission, at: &At) -> Option<Self> {
        let set = |set: &proto::permission::Set, name: &str| {
            let read = |(index, rule)| Self::from_xds(rule, &at.index(&format!("{name}.rules"), index));
            set.rules.iter().enumerate().map(read).collect::<Option<Vec<_>>>()
        };
        Some(match permission.rule.as_ref() {
            Some(Rule::Any(true)) => Self::Any,
            Some(Rule::Any(false)) => Self::Never,
            Some(Rule::AndRules(rules)) => Self::And(set(rules, "and_rules")?),
            Some(Rule::OrRules(rules)) => Self::Or(set(rules, "or_rules")?),
            Some(Rule::NotRule(rule)) => Self::Not(Box::new(Self::from_xds(rule, &at.field("not_rule"))?)),
            Some(Rule::Header(header)) => Self::Header(HeaderMatcher::from_xds(header, &at.field("header"))?),
            Some(Rule::UrlPath(path)) => Self::Path(url_path(path, &at.field("url_path"))?),
            Some(Rule::DestinationIp(range)) => {
                Self::DestinationIp(addresses::network(range, &at.field("destination_ip"))?)
            }
            Some(Rule::DestinationPort(port)) => match u16::try_from(*port) {
                Ok(port) => Self::DestinationPort(port),
                Err(_) => {
                    at.field("destination_port").error("must be a port number");
                    return None;
                }
            },
            Some(Rule::DestinationPortRange(range)) => {
                if range.start < 0 || range.start >= range.end || range.end > 65_536 {
                    at.field("destination_port_range").error("must start below its end, within the port numbers");
                }
                Self::DestinationPortRange(range.start, range.end)
            }
            Some(Rule::RequestedServerName(name)) => {
                Self::Sni(StringMatcher::from_xds(name, &at.field("requested_server_name"))?)
            }
            Some(Rule::Metadata(metadata)) => {
                Self::Metadata(MetadataMatcher::from_xds(metadata, &at.field("metadata"))?)
            }
            Some(Rule::SourcedMetadata(metadata)) => Self::Metadata(sourced(metadata, &at.field("sourced_metadata"))?),
            Some(Rule::Matcher(_) | Rule::UriTemplate(_)) => {
                at.error("this kind of permission is not supported");
                return None;
            }
            None => {
                at.error("is empty");
                return None;
            }
        })
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Never => false,
            Self::And(rules) => rules.iter().all(|rule| rule.matches(subject)),
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(subject)),
            Self::Not(rule) => !rule.matches(subject),
            Self::Header(matcher) => header_matches(matcher, subject),
            Self::Path(matcher) => subject.head.is_some_and(|head| matcher.matches(head.path_only())),
            Self::DestinationIp(network) => addresses::holds(network, subject.destination.ip()),
            Self::DestinationPort(port) => subject.destination.port() == *port,
            Self::DestinationPortRange(start, end) => (*start..*end).contains(&i32::from(subject.destination.port())),
            Self::Sni(matcher) => matcher.matches(subject.sni.unwrap_or_default()),
            Self::Metadata(matcher) => matcher.matches(subject.metadata),
        }
    }
}

impl Principal {
    fn from_xds(principal: &proto::Principal, at: &At) -> Option<Self> {
        let set = |set: &proto::principal::Set, name: &str| {
            let read = |(index, id)| Self::from_xds(id, &at.index(&format!("{name}.ids"), index));
            set.ids.iter().enumerate().map(read).collect::<Option<Vec<_>>>()
        };
        Some(match principal.identifier.as_ref() {
            Some(Identifier::Any(true)) => Self::Any,
            Some(Identifier::Any(false)) => Self::Never,
            Some(Identifier::AndIds(ids)) => Self::And(set(ids, "and_ids")?),
            Some(Identifier::OrIds(ids)) => Self::Or(set(ids, "or_ids")?),
            Some(Identifier::NotId(id)) => Self::Not(Box::new(Self::from_xds(id, &at.field("not_id"))?)),
            Some(Identifier::Authenticated(authenticated)) => {
                Self::Authenticated(match &authenticated.principal_name {
                    None => None,
                    Some(name) => Some(StringMatcher::from_xds(name, &at.field("authenticated.principal_name"))?),
                })
            }
            Some(Identifier::SourceIp(range)) => {
                Self::DirectRemoteIp(addresses::network(range, &at.field("source_ip"))?)
            }
            Some(Identifier::DirectRemoteIp(range)) => {
                Self::DirectRemoteIp(addresses::network(range, &at.field("direct_remote_ip"))?)
            }
            Some(Identifier::RemoteIp(range)) => Self::RemoteIp(addresses::network(range, &at.field("remote_ip"))?),
            Some(Identifier::Header(header)) => Self::Header(HeaderMatcher::from_xds(header, &at.field("header"))?),
            Some(Identifier::UrlPath(path)) => Self::Path(url_path(path, &at.field("url_path"))?),
            Some(Identifier::Metadata(metadata)) => {
                Self::Metadata(MetadataMatcher::from_xds(metadata, &at.field("metadata"))?)
            }
            Some(Identifier::SourcedMetadata(metadata)) => {
                Self::Metadata(sourced(metadata, &at.field("sourced_metadata"))?)
            }
            Some(_) => {
                at.error("this kind of principal is not supported");
                return None;
            }
            None => {
                at.error("is empty");
                return None;
            }
        })
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Never => false,
            Self::And(ids) => ids.iter().all(|id| id.matches(subject)),
            Self::Or(ids) => ids.iter().any(|id| id.matches(subject)),
            Self::Not(id) => !id.matches(subject),
            Self::Authenticated(name) => {
                subject.peer.is_some_and(|peer| name.as_ref().is_none_or(|name| peer.any(|text| name.matches(text))))
            }
            Self::DirectRemoteIp(network) => addresses::holds(network, subject.direct_remote),
            Self::RemoteIp(network) => addresses::holds(network, subject.remote),
            Self::Header(matcher) => header_matches(matcher, subject),
            Self::Path(matcher) => subject.head.is_some_and(|head| matcher.matches(head.path_only())),
            Self::Metadata(matcher) => matcher.matches(subject.metadata),
        }
    }
}

fn sourced(metadata: &proto::SourcedMetadata, at: &At) -> Option<MetadataMatcher> {
    if metadata.metadata_source() != proto::MetadataSource::Dynamic {
        at.field("metadata_source").error("must be DYNAMIC: a route's own metadata is not kept");
    }
    let Some(matcher) = &metadata.metadata_matcher else {
        at.field("metadata_matcher").error("is required");
        return None;
    };
    MetadataMatcher::from_xds(matcher, &at.field("metadata_matcher"))
}

/// On a TCP connection no header is there, which a condition may be on, too.
fn header_matches(matcher: &HeaderMatcher, subject: &Subject<'_>) -> bool {
    match subject.head {
        Some(head) => matcher.matches(head),
        None => matcher.matches_response(&Headers::default()),
    }
}

fn url_path(matcher: &envoy_types::pb::envoy::r#type::matcher::v3::PathMatcher, at: &At) -> Option<StringMatcher> {
    match matcher.rule.as_ref() {
        Some(path_matcher::Rule::Path(path)) => StringMatcher::from_xds(path, &at.field("path")),
        None => {
            at.error("is empty");
            None
        }
    }
}

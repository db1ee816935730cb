//! One condition of an AuthorizationPolicy rule (an attribute and the values it may or must not have) as an RBAC
//! permission or principal.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use ipnet::IpNet;
use lateen_mesh::MeshConfig;
use rbac::{permission::Rule, principal::Identifier};

use crate::filters::claims;
use crate::proto::{cidr, strings};

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    // Who.
    Principal,
    Namespace,
    /// Default namespace of names written without one: the policy's.
    ServiceAccount {
        namespace: String,
    },
    TrustDomain,
    SourceIp,
    RemoteIp,
    RequestHeader(String),
    /// `issuer/subject` of a token.
    RequestPrincipal,
    /// A claim of a token, through nested ones.
    Claim(Vec<String>),
    // What.
    Host,
    Method,
    Path,
    DestinationPort,
    DestinationIp,
    ServerName,
    /// What another filter has said of the request.
    Metadata {
        filter: String,
        key: String,
    },
    /// A key that we do not know.
    Unknown,
}

/// An attribute, the values of which one must hold and those of which none may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) attribute: Attribute,
    pub(crate) values: Vec<String>,
    pub(crate) not_values: Vec<String>,
}

/// The condition cannot be checked here: HTTP-only on a TCP chain, a malformed value, or not supported.
///
/// An ALLOW rule with such a condition never matches; a DENY rule goes without the condition and so gets wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotCheckable;

/// What translating a condition depends on besides the condition.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a MeshConfig,
    /// On a TCP filter chain, where there are no requests.
    pub(crate) tcp: bool,
    /// Conditions that cannot be checked are left out (DENY) rather than failing the rule (ALLOW).
    pub(crate) drop_uncheckable: bool,
}

impl Condition {
    pub(crate) fn new(attribute: Attribute, values: &[String], not_values: &[String]) -> Option<Self> {
        if values.is_empty() && not_values.is_empty() {
            return None;
        }
        Some(Self { attribute, values: values.to_vec(), not_values: not_values.to_vec() })
    }

    /// Whether the condition is about who, and so a principal; else it is a permission.
    pub(crate) fn is_about_the_source(&self) -> bool {
        matches!(
            self.attribute,
            Attribute::Principal
                | Attribute::Namespace
                | Attribute::ServiceAccount { .. }
                | Attribute::TrustDomain
                | Attribute::SourceIp
                | Attribute::RemoteIp
                | Attribute::RequestHeader(_)
                | Attribute::RequestPrincipal
                | Attribute::Claim(_)
        )
    }

    /// The parts (all must hold) that this condition adds to a principal.
    pub(crate) fn principals(&self, context: Context<'_>) -> Result<Vec<rbac::Principal>, NotCheckable> {
        let mut parts = Vec::new();
        let wanted = self.collect(&self.values, context, |value| self.principal(value, context))?;
        if !wanted.is_empty() {
            parts.push(any_principal(wanted));
        }
        let unwanted = self.collect(&self.not_values, context, |value| self.principal(value, context))?;
        if !unwanted.is_empty() {
            parts.push(principal(Identifier::NotId(Box::new(any_principal(unwanted)))));
        }
        Ok(parts)
    }

    /// The parts (all must hold) that this condition adds to a permission.
    pub(crate) fn permissions(&self, context: Context<'_>) -> Result<Vec<rbac::Permission>, NotCheckable> {
        let mut parts = Vec::new();
        let wanted = self.collect(&self.values, context, |value| self.permission(value, context))?;
        if !wanted.is_empty() {
            parts.push(any_permission(wanted));
        }
        let unwanted = self.collect(&self.not_values, context, |value| self.permission(value, context))?;
        if !unwanted.is_empty() {
            parts.push(permission(Rule::NotRule(Box::new(any_permission(unwanted)))));
        }
        Ok(parts)
    }

    fn collect<T>(
        &self,
        values: &[String],
        context: Context<'_>,
        translate: impl Fn(&str) -> Result<T, NotCheckable>,
    ) -> Result<Vec<T>, NotCheckable> {
        let mut out = Vec::new();
        for value in self.with_trust_domain_aliases(values, context.config) {
            match translate(&value) {
                Ok(part) => out.push(part),
                // The whole list goes: with only the checkable values left, the rule would deny less.
                Err(NotCheckable) if context.drop_uncheckable => return Ok(Vec::new()),
                Err(NotCheckable) => return Err(NotCheckable),
            }
        }
        Ok(out)
    }

    /// `cluster.local`, the own trust domain and its aliases all mean each other in policies.
    fn with_trust_domain_aliases(&self, values: &[String], config: &MeshConfig) -> Vec<String> {
        let is_local = |domain: &str| domain == "cluster.local" || config.trust_domains().any(|known| known == domain);
        let mut out = Vec::new();
        for value in values {
            let split = match self.attribute {
                Attribute::Principal => value.split_once('/').map(|(domain, rest)| (domain, format!("/{rest}"))),
                Attribute::TrustDomain => Some((value.as_str(), String::new())),
                _ => None,
            };
            match split {
                Some((domain, rest)) if is_local(domain) => {
                    out.extend(config.trust_domains().map(|known| format!("{known}{rest}")));
                }
                _ => out.push(value.clone()),
            }
        }
        out
    }

    fn principal(&self, value: &str, context: Context<'_>) -> Result<rbac::Principal, NotCheckable> {
        match &self.attribute {
            Attribute::Principal => Ok(authenticated(spiffe_matcher(value))),
            Attribute::Namespace => {
                let pattern = value.split('*').map(regex_escape).collect::<Vec<_>>().join(".*");
                Ok(authenticated(strings::regex(format!(".*/ns/{pattern}/.*"))))
            }
            Attribute::ServiceAccount { namespace } => {
                let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
                let pattern =
                    format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", regex_escape(namespace), regex_escape(account));
                Ok(authenticated(strings::regex(pattern)))
            }
            Attribute::TrustDomain => Ok(authenticated(trust_domain_matcher(value))),
            Attribute::SourceIp => Ok(principal(Identifier::DirectRemoteIp(cidr_range(value)?))),
            Attribute::RemoteIp => Ok(principal(Identifier::RemoteIp(cidr_range(value)?))),
            Attribute::RequestHeader(name) => {
                context.http_only()?;
                Ok(principal(Identifier::Header(header_matcher(name, value, false))))
            }
            Attribute::RequestPrincipal => {
                context.http_only()?;
                let (issuer, subject) = request_principal(value);
                let ids = [("iss", issuer), ("sub", subject)].map(|(name, text)| {
                    principal(Identifier::SourcedMetadata(sourced(claims::text_claim(name, text))))
                });
                Ok(principal(Identifier::AndIds(rbac::principal::Set { ids: ids.into() })))
            }
            Attribute::Claim(path) => {
                context.http_only()?;
                Ok(principal(Identifier::SourcedMetadata(sourced(claims::claim(path, string_matcher(value))))))
            }
            _ => Err(NotCheckable),
        }
    }

    fn permission(&self, value: &str, context: Context<'_>) -> Result<rbac::Permission, NotCheckable> {
        match &self.attribute {
            Attribute::Host => {
                context.http_only()?;
                Ok(permission(Rule::Header(header_matcher(":authority", value, true))))
            }
            Attribute::Method => {
                context.http_only()?;
                Ok(permission(Rule::Header(header_matcher(":method", value, false))))
            }
            Attribute::Path => {
                context.http_only()?;
                let path = path_template(value).map_or_else(|| string_matcher(value), strings::regex);
                Ok(permission(Rule::UrlPath(matcher::PathMatcher {
                    rule: Some(matcher::path_matcher::Rule::Path(path)),
                })))
            }
            Attribute::DestinationPort => {
                let port: u16 = value.parse().map_err(|_| NotCheckable)?;
                Ok(permission(Rule::DestinationPort(u32::from(port))))
            }
            Attribute::DestinationIp => Ok(permission(Rule::DestinationIp(cidr_range(value)?))),
            Attribute::ServerName => Ok(permission(Rule::RequestedServerName(string_matcher(value)))),
            Attribute::Metadata { filter, key } => {
                let item = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                let matcher = string_matcher(item.unwrap_or(value));
                Ok(permission(Rule::SourcedMetadata(sourced(claims::said(filter, key, matcher, item.is_some())))))
            }
            _ => Err(NotCheckable),
        }
    }
}

impl Context<'_> {
    fn http_only(&self) -> Result<(), NotCheckable> {
        if self.tcp { Err(NotCheckable) } else { Ok(()) }
    }
}

pub(crate) fn permission(rule: Rule) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

pub(crate) fn principal(identifier: Identifier) -> rbac::Principal {
    rbac::Principal { identifier: Some(identifier) }
}

/// Of the request, as filters before have written it.
fn sourced(matcher: matcher::MetadataMatcher) -> rbac::SourcedMetadata {
    rbac::SourcedMetadata { metadata_matcher: Some(matcher), metadata_source: rbac::MetadataSource::Dynamic as i32 }
}

fn any_permission(rules: Vec<rbac::Permission>) -> rbac::Permission {
    permission(Rule::OrRules(rbac::permission::Set { rules }))
}

fn any_principal(ids: Vec<rbac::Principal>) -> rbac::Principal {
    principal(Identifier::OrIds(rbac::principal::Set { ids }))
}

fn authenticated(name: matcher::StringMatcher) -> rbac::Principal {
    principal(Identifier::Authenticated(rbac::principal::Authenticated { principal_name: Some(name) }))
}

/// Exact, `prefix*`, `*suffix`, or `*` for anything that is not empty.
fn string_matcher(value: &str) -> matcher::StringMatcher {
    if value == "*" {
        strings::regex(".+")
    } else if let Some(suffix) = value.strip_prefix('*') {
        strings::suffix(suffix)
    } else if let Some(prefix) = value.strip_suffix('*') {
        strings::prefix(prefix)
    } else {
        strings::exact(value)
    }
}

/// `issuer/subject`: an issuer may have slashes of its own, a subject not. A star stands for the beginning or the end of the
/// whole (Istio).
fn request_principal(value: &str) -> (matcher::StringMatcher, matcher::StringMatcher) {
    let any = || strings::regex(".+");
    let (issuer, subject) = value.rsplit_once('/').map_or((value, None), |(issuer, subject)| (issuer, Some(subject)));
    match (value.strip_prefix('*'), value.strip_suffix('*'), subject) {
        (Some(""), ..) => (any(), any()),
        (Some(_), _, Some(subject)) => {
            let issuer = issuer.trim_start_matches('*');
            (if issuer.is_empty() { any() } else { strings::suffix(issuer) }, strings::exact(subject))
        }
        (Some(suffix), _, None) => (any(), strings::suffix(suffix)),
        (None, Some(_), Some(subject)) => {
            let prefix = subject.trim_end_matches('*');
            (strings::exact(issuer), if prefix.is_empty() { any() } else { strings::prefix(prefix) })
        }
        (None, Some(prefix), None) => (strings::prefix(prefix), any()),
        (None, None, subject) => (strings::exact(issuer), strings::exact(subject.unwrap_or_default())),
    }
}

/// A principal is written without `spiffe://`, which the certificate has.
fn spiffe_matcher(value: &str) -> matcher::StringMatcher {
    if value == "*" {
        strings::regex(".+")
    } else if let Some(suffix) = value.strip_prefix('*') {
        strings::regex(format!("spiffe://.*{}", regex_escape(suffix)))
    } else if let Some(prefix) = value.strip_suffix('*') {
        strings::prefix(format!("spiffe://{prefix}"))
    } else {
        strings::exact(format!("spiffe://{value}"))
    }
}

fn trust_domain_matcher(value: &str) -> matcher::StringMatcher {
    if value == "*" {
        strings::prefix("spiffe://")
    } else if let Some((before, after)) = value.split_once('*') {
        strings::regex(format!("spiffe://{}[^/]*{}/.*", regex_escape(before), regex_escape(after)))
    } else {
        strings::prefix(format!("spiffe://{value}/"))
    }
}

fn header_matcher(name: &str, value: &str, ignore_case: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        let matcher = string_matcher(value);
        HeaderMatchSpecifier::StringMatch(if ignore_case { strings::ignore_case(matcher) } else { matcher })
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..route::HeaderMatcher::default()
    }
}

/// An address or a range.
fn cidr_range(value: &str) -> Result<core::CidrRange, NotCheckable> {
    if let Ok(net) = value.parse::<IpNet>() {
        return Ok(cidr(net.addr(), net.prefix_len()));
    }
    let ip: IpAddr = value.parse().map_err(|_| NotCheckable)?;
    Ok(cidr(ip, if ip.is_ipv4() { 32 } else { 128 }))
}

/// The characters of a path segment (RFC 3986 `pchar`), as Envoy's URI templates have them.
const SEGMENT: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=";

/// A path with `{*}` (one segment) or `{**}` (any number of them) as a regular expression; `None` for other paths.
fn path_template(value: &str) -> Option<String> {
    if !value.contains("{*}") && !value.contains("{**}") {
        return None;
    }
    let mut pattern = String::new();
    let mut rest = value;
    while let Some(start) = rest.find("{*") {
        pattern.push_str(&regex_escape(&rest[..start]));
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("{**}") {
            pattern.push_str(&format!("[{SEGMENT}/]*"));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{*}") {
            pattern.push_str(&format!("[{SEGMENT}]+"));
            rest = after;
        } else {
            break;
        }
    }
    pattern.push_str(&regex_escape(rest));
    Some(pattern)
}

/// Quotes what RE2 would take for an operator.
pub(crate) fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_anchored_segments() {
        assert_eq!(path_template("/plain"), None);
        assert_eq!(path_template("/a.b/{*}/c"), Some(format!(r"/a\.b/[{SEGMENT}]+/c")));
        assert_eq!(path_template("/a/{**}"), Some(format!("/a/[{SEGMENT}/]*")));
    }

    #[test]
    fn the_local_trust_domain_and_its_aliases_are_one() {
        let config = MeshConfig {
            trust_domain: "td1".to_owned(),
            trust_domain_aliases: vec!["td2".to_owned()],
            ..MeshConfig::default()
        };
        let condition = |values: &[&str]| Condition {
            attribute: Attribute::Principal,
            values: values.iter().map(ToString::to_string).collect(),
            not_values: Vec::new(),
        };
        for (value, want) in [
            ("cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"][..]),
            ("td2/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]),
            ("other/ns/a/sa/b", &["other/ns/a/sa/b"]),
            ("*", &["*"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
        ] {
            let condition = condition(&[value]);
            assert_eq!(condition.with_trust_domain_aliases(&condition.values, &config), want, "{value}");
        }
    }
}

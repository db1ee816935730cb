//! Match conditions of a VirtualService's HTTP routes.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use lateen_api::networking::virtual_service::{HeaderMatch, HttpMatch};
use lateen_api::scalar::StringMatch;
use lateen_mesh::{Labels, Semantics, selects};
use route::header_matcher::HeaderMatchSpecifier;
use route::query_parameter_matcher::QueryParameterMatchSpecifier;
use route::route_match::PathSpecifier;

use crate::filters::claims;
use crate::proto::{boolean, strings};
use crate::route::everything;

/// Who asks and on which listener: what the static conditions of a match are compared with.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) namespace: &'a str,
    /// `mesh`, or `<namespace>/<name>` of a Gateway.
    pub(crate) gateway: &'a str,
    /// Port of the service or of the Gateway server.
    pub(crate) port: u16,
}

impl Asker<'_> {
    /// Whether one of these gateways, as a rule of `namespace` writes them, is the one asked on.
    pub(crate) fn is_on_one_of(&self, gateways: &[String], namespace: &str) -> bool {
        gateways.iter().any(|gateway| lateen_mesh::gateway_name(gateway, namespace) == self.gateway)
    }

    pub(crate) fn is_from(&self, labels: &Labels, namespace: &str) -> bool {
        selects(labels, self.labels) && (namespace.is_empty() || namespace == self.namespace)
    }
}

/// Whether the conditions that do not depend on a request hold. With `gateways` in a match, these alone decide:
/// `sourceLabels` and `sourceNamespace` are then ignored (Istio does so for HTTP, not for TLS and TCP).
pub(crate) fn concerns(conditions: &HttpMatch, asker: &Asker<'_>, namespace: &str) -> bool {
    if conditions.port.is_some_and(|port| port != 0 && port != u32::from(asker.port)) {
        return false;
    }
    if !conditions.gateways.is_empty() {
        return asker.is_on_one_of(&conditions.gateways, namespace);
    }
    asker.is_from(&conditions.source_labels, &conditions.source_namespace)
}

/// The conditions that depend on the request.
pub(crate) fn translate(conditions: &HttpMatch, semantics: Semantics) -> route::RouteMatch {
    let mut out = everything();
    if let Some(uri) = &conditions.uri {
        out.path_specifier = Some(path_specifier(uri, semantics));
    }
    out.case_sensitive = Some(boolean(!conditions.ignore_uri_case));
    let mut headers = Vec::new();
    for (wanted, conditions) in [(true, &conditions.headers), (false, &conditions.without_headers)] {
        for (name, value) in conditions {
            match claim(name, value) {
                Some(claim) => out.dynamic_metadata.push(matcher::MetadataMatcher { invert: !wanted, ..claim }),
                None if wanted => headers.push(header(name, value.0.as_ref())),
                None => headers.push(without_header(name, value)),
            }
        }
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, value) in
        [(":method", &conditions.method), (":authority", &conditions.authority), (":scheme", &conditions.scheme)]
    {
        if value.is_some() {
            headers.push(header(name, value.as_ref()));
        }
    }
    out.headers = headers;
    out.query_parameters = conditions.query_params.iter().map(|(name, value)| query(name, value)).collect();
    out
}

/// Whether every request matches, so that what follows is unreachable.
pub(crate) fn is_catch_all(conditions: &route::RouteMatch) -> bool {
    let any_path = match &conditions.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    any_path
        && conditions.headers.is_empty()
        && conditions.query_parameters.is_empty()
        && conditions.dynamic_metadata.is_empty()
}

/// Istio's is a plain string prefix: `/foo` is also the beginning of `/foobar`. The Gateway API's is one of whole segments.
fn path_specifier(uri: &StringMatch, semantics: Semantics) -> PathSpecifier {
    match uri {
        StringMatch::Prefix(prefix)
            if semantics == Semantics::GatewayApi && !prefix.trim_end_matches('/').is_empty() =>
        {
            PathSpecifier::PathSeparatedPrefix(prefix.trim_end_matches('/').to_owned())
        }
        StringMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        StringMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        StringMatch::Regex(regex) => PathSpecifier::SafeRegex(strings::regex_matcher(regex)),
    }
}

pub(crate) fn string_matcher(value: &StringMatch) -> matcher::StringMatcher {
    match value {
        StringMatch::Exact(text) => strings::exact(text),
        StringMatch::Prefix(text) => strings::prefix(text),
        StringMatch::Regex(text) => strings::regex(text),
    }
}

/// The matcher of a value, or `None` when presence is all that is asked for: by an empty matcher or the regex `*`.
fn value_matcher(value: Option<&StringMatch>) -> Option<matcher::StringMatcher> {
    match value {
        None => None,
        Some(StringMatch::Regex(regex)) if regex == "*" => None,
        Some(value) => Some(string_matcher(value)),
    }
}

pub(crate) fn header(name: &str, value: Option<&StringMatch>) -> route::HeaderMatcher {
    let specifier =
        value_matcher(value).map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch);
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..route::HeaderMatcher::default()
    }
}

/// The request names no other port than this one, to which it goes if it names none: else a client could reach any port of
/// a service whose requests go where they say.
pub(crate) fn on_port(port: u16, tls: bool) -> route::HeaderMatcher {
    let usual = if tls { 443 } else { 80 };
    let regex = if port == usual || tls { format!("[^:]+(:{port})?") } else { format!("[^:]+:{port}") };
    header(":authority", Some(&StringMatch::Regex(regex)))
}

/// An absent header counts as empty, unless presence itself is unwanted.
pub(crate) fn without_header(name: &str, value: &HeaderMatch) -> route::HeaderMatcher {
    route::HeaderMatcher {
        invert_match: true,
        treat_missing_header_as_empty: value_matcher(value.0.as_ref()).is_some(),
        ..header(name, value.0.as_ref())
    }
}

/// `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`: a claim of a token, by the name of a header.
fn claim(name: &str, value: &HeaderMatch) -> Option<matcher::MetadataMatcher> {
    let path = claim_path(name)?;
    let present = || strings::regex(".+");
    Some(claims::claim(&path, value.0.as_ref().map_or_else(present, string_matcher)))
}

fn claim_path(name: &str) -> Option<Vec<String>> {
    const NAME: &str = "@request.auth.claims";
    let is_claim = name.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME));
    let rest = name.get(NAME.len()..).filter(|_| is_claim)?;
    let steps = |text: &str, by: &str| text.split(by).map(str::to_owned).collect();
    match (rest.strip_prefix('.'), rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))) {
        (Some(path), _) if !path.is_empty() => Some(steps(path, ".")),
        (_, Some(path)) if !path.is_empty() => Some(steps(path, "][")),
        _ => None,
    }
}

fn query(name: &str, value: &HeaderMatch) -> route::QueryParameterMatcher {
    let specifier = value_matcher(value.0.as_ref())
        .map_or(QueryParameterMatchSpecifier::PresentMatch(true), QueryParameterMatchSpecifier::StringMatch);
    route::QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

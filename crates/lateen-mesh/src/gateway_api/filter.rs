//! Filters of routes, in the words of a VirtualService.

use lateen_api::gateway_api::filters::{
    Cors, Filter, FilterType, Header, HeaderModifier, PathModifierType, RequestMirror, RequestRedirect, UrlRewrite,
};
use lateen_api::meta::StringMap;
use lateen_api::networking::virtual_service::{
    CorsPolicy, DerivePort, HeaderOperations, Headers, HttpRoute, Mirror, Redirect, RegexRewrite, Rewrite,
    UnmatchedPreflights,
};
use lateen_api::scalar::{Duration, Percent, StringMatch};

use super::backend::Backends;
use super::condition::Fault;

/// Schema default of `HTTPRequestRedirectFilter.statusCode`.
const FOUND: u32 = 302;

/// Puts the filters of a rule into the route that it becomes. Gives what is wrong with mirrors, which are then left out.
///
/// # Errors
/// A filter that we do not have, or that says what none may say.
pub(super) fn apply(filters: &[Filter], backends: &Backends<'_>, out: &mut HttpRoute) -> Result<Option<Fault>, Fault> {
    let mut fault = None;
    for filter in filters {
        match filter.kind {
            FilterType::RequestHeaderModifier | FilterType::ResponseHeaderModifier => {
                headers(filter, &mut out.headers)?;
            }
            FilterType::RequestRedirect => out.redirect = filter.request_redirect.as_ref().map(redirect),
            FilterType::UrlRewrite => out.rewrite = filter.url_rewrite.as_ref().and_then(rewrite),
            FilterType::Cors => out.cors_policy = filter.cors.as_ref().map(cors),
            FilterType::RequestMirror => {
                let Some(wanted) = &filter.request_mirror else { continue };
                match mirror(wanted, backends) {
                    Ok(mirror) => out.mirrors.push(mirror),
                    Err(wrong) => fault = Some(wrong),
                }
            }
            FilterType::ExtensionRef => return Err(unsupported(filter.kind)),
        }
    }
    Ok(fault)
}

/// The same for a backend's own filters, which can be changes of headers.
///
/// # Errors
/// See [`apply`].
pub(super) fn of_backend(filters: &[Filter]) -> Result<Option<Headers>, Fault> {
    let mut out = None;
    for filter in filters {
        match filter.kind {
            FilterType::RequestHeaderModifier | FilterType::ResponseHeaderModifier => headers(filter, &mut out)?,
            other => return Err(unsupported(other)),
        }
    }
    Ok(out)
}

pub(super) fn unsupported(kind: FilterType) -> Fault {
    Fault::new("InvalidFilter", format!("unsupported filter type \"{}\"", kind.name()))
}

fn headers(filter: &Filter, out: &mut Option<Headers>) -> Result<(), Fault> {
    let is_request = filter.kind == FilterType::RequestHeaderModifier;
    let wanted = if is_request { &filter.request_header_modifier } else { &filter.response_header_modifier };
    let Some(wanted) = wanted else { return Ok(()) };
    let operations = Some(operations(wanted)?);
    let headers = out.get_or_insert_default();
    if is_request {
        headers.request = operations;
    } else {
        headers.response = operations;
    }
    Ok(())
}

fn operations(wanted: &HeaderModifier) -> Result<HeaderOperations, Fault> {
    for header in wanted.set.iter().chain(&wanted.add) {
        // RFC 9110, 5.5: visible characters, spaces and tabs, and what is beyond ASCII.
        let is_legal = |byte: u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        if !header.value.bytes().all(is_legal) {
            let message = format!("header \"{}\" value contains invalid characters", header.name);
            return Err(Fault::new("InvalidFilter", message));
        }
    }
    let map = |list: &[Header]| {
        let mut out = StringMap::new();
        for header in list {
            // The first one for a name counts.
            out.entry(header.name.to_ascii_lowercase()).or_insert_with(|| header.value.clone());
        }
        out
    };
    Ok(HeaderOperations { set: map(&wanted.set), add: map(&wanted.add), remove: wanted.remove.clone() })
}

fn redirect(wanted: &RequestRedirect) -> Redirect {
    let mut out = Redirect {
        authority: wanted.hostname.clone().unwrap_or_default(),
        scheme: wanted.scheme.clone().unwrap_or_default(),
        redirect_code: wanted.status_code.unwrap_or(FOUND),
        port: wanted.port.map(u32::from),
        ..Redirect::default()
    };
    if wanted.port.is_none() {
        let by_scheme = wanted.scheme.is_some();
        out.derive_port = Some(if by_scheme { DerivePort::FromProtocolDefault } else { DerivePort::FromRequestPort });
    }
    if let Some(path) = &wanted.path {
        match path.kind {
            PathModifierType::ReplaceFullPath => out.uri = path.replace_full_path.clone().unwrap_or_default(),
            PathModifierType::ReplacePrefixMatch => out.prefix_rewrite.clone_from(&path.replace_prefix_match),
        }
    }
    out
}

fn rewrite(wanted: &UrlRewrite) -> Option<Rewrite> {
    let mut out = Rewrite { authority: wanted.hostname.clone().unwrap_or_default(), ..Rewrite::default() };
    if let Some(path) = &wanted.path {
        match path.kind {
            PathModifierType::ReplacePrefixMatch => {
                let prefix = path.replace_prefix_match.as_deref().unwrap_or_default();
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                // `/` takes the prefix away.
                out.uri = if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() };
            }
            PathModifierType::ReplaceFullPath => {
                let rewrite = path.replace_full_path.clone().unwrap_or_default();
                out.uri_regex_rewrite = Some(RegexRewrite { pattern: "/.*".to_owned(), rewrite });
            }
        }
    }
    (out != Rewrite::default()).then_some(out)
}

/// # Errors
/// The copy leads nowhere: it is not made.
pub(super) fn mirror(wanted: &RequestMirror, backends: &Backends<'_>) -> Result<Mirror, Fault> {
    let (destination, fault) = backends.destination(&wanted.backend_ref)?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let percentage = match (wanted.fraction, wanted.percent) {
        (Some(fraction), _) => {
            let value = 100.0 * f64::from(fraction.numerator) / f64::from(fraction.denominator.unwrap_or(100));
            Some(Percent { value })
        }
        (None, Some(percent)) => Some(Percent { value: f64::from(percent) }),
        (None, None) => None,
    };
    Ok(Mirror { destination, percentage })
}

/// Any origin: a scheme, an authority, and nothing behind it (RFC 6454, 6.2).
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

fn cors(wanted: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origins: wanted.allow_origins.iter().filter(|origin| !origin.is_empty()).map(|it| origin(it)).collect(),
        allow_methods: wanted.allow_methods.clone(),
        allow_headers: wanted.allow_headers.clone(),
        expose_headers: wanted.expose_headers.clone(),
        max_age: wanted.max_age.filter(|age| *age > 0).map(|age| Duration::from_secs(u64::from(age))),
        allow_credentials: wanted.allow_credentials.filter(|allowed| *allowed),
        unmatched_preflights: Some(UnmatchedPreflights::Ignore),
        ..CorsPolicy::default()
    }
}

fn origin(pattern: &str) -> StringMatch {
    match (pattern, pattern.split_once('*')) {
        ("*", _) => StringMatch::Regex(ANY_ORIGIN.to_owned()),
        (exact, None) => StringMatch::Exact(exact.to_owned()),
        (_, Some((prefix, ""))) => StringMatch::Prefix(prefix.to_owned()),
        (pattern, Some(_)) => {
            let parts: Vec<String> = pattern.split('*').map(quote).collect();
            StringMatch::Regex(format!("^{}$", parts.join(".*")))
        }
    }
}

/// A text as a regular expression for itself.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

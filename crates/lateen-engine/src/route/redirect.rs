//! `RedirectAction`: where else a client is sent.

use envoy_types::pb::envoy::config::route::v3 as proto;
use http::StatusCode;
use proto::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};

use super::Route;
use super::action::RegexRewrite;
use super::virtual_host::without_port;
use crate::config::error::At;
use crate::message::{RequestHead, Scheme};

#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: PathChange,
    strip_query: bool,
}

#[derive(Debug)]
enum PathChange {
    Keep,
    /// The whole path; with a query of its own if it has one.
    Path(String),
    Prefix(String),
    Regex(RegexRewrite),
}

impl Redirect {
    pub(super) fn from_xds(config: &proto::RedirectAction, at: &At) -> Option<Self> {
        let status = match config.response_code() {
            RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            RedirectResponseCode::Found => StatusCode::FOUND,
            RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
            RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        };
        let scheme = match config.scheme_rewrite_specifier.as_ref() {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
                Some(scheme.to_ascii_lowercase()).filter(|scheme| !scheme.is_empty())
            }
            Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
        };
        let path = match config.path_rewrite_specifier.as_ref() {
            None => PathChange::Keep,
            // Envoy takes an empty text for none, as it does for scheme and host.
            Some(PathRewriteSpecifier::PathRedirect(text) | PathRewriteSpecifier::PrefixRewrite(text))
                if text.is_empty() =>
            {
                PathChange::Keep
            }
            Some(PathRewriteSpecifier::PathRedirect(path)) => PathChange::Path(path.clone()),
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => PathChange::Prefix(prefix.clone()),
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
                PathChange::Regex(RegexRewrite::from_xds(regex, &at.field("regex_rewrite"))?)
            }
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                at.refuse_if("path_rewrite", true);
                return None;
            }
        };
        let port = Some(config.port_redirect).filter(|port| *port != 0);
        if port.is_some_and(|port| port > 65535) {
            at.field("port_redirect").error("must be a port number");
        }
        Some(Self {
            status,
            scheme,
            host: Some(config.host_redirect.clone()).filter(|host| !host.is_empty()),
            port: port.and_then(|port| u16::try_from(port).ok()),
            path,
            strip_query: config.strip_query,
        })
    }

    /// The `Location` for a request.
    pub fn location(&self, route: &Route, head: &RequestHead) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme.as_str());
        let host = self.host(head, scheme);
        let target = head.target();
        let path = head.path_only();
        let query = if self.strip_query { "" } else { target[path.len()..].split('#').next().unwrap_or_default() };
        let path = match &self.path {
            PathChange::Keep => format!("{path}{query}"),
            PathChange::Path(new) if new.contains('?') => new.clone(),
            PathChange::Path(new) => format!("{new}{query}"),
            PathChange::Prefix(new) => format!("{new}{}{query}", &path[route.matched_prefix(path)..]),
            PathChange::Regex(regex) => format!("{}{query}", regex.apply(path)),
        };
        format!("{scheme}://{host}{path}")
    }

    /// The host of the new place: a port that was the old scheme's default goes when the scheme changes.
    fn host(&self, head: &RequestHead, scheme: &str) -> String {
        let host = match &self.host {
            Some(host) => host.as_str(),
            None => {
                let host = head.host();
                let bare = without_port(host);
                let port = &host[bare.len()..];
                let changed = self.scheme.is_some() && scheme != head.scheme.as_str();
                let was_default = match head.scheme {
                    Scheme::Http => port == ":80",
                    Scheme::Https => port == ":443",
                };
                if self.port.is_some() || (changed && was_default) { bare } else { host }
            }
        };
        match self.port {
            Some(port) => format!("{}:{port}", without_port(host)),
            None => host.to_owned(),
        }
    }
}

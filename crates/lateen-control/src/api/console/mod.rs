//! The console's pages, which are part of the program, and who may look at them and change things through them.

mod assets;
pub mod key;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// Nothing but our own files may run in the page, it talks to nobody but us, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every request that is not only a look must have: the owner's key, or anything from whoever has none. A page from
/// elsewhere could not send it without asking us first, which nobody answers.
const INTENT: HeaderName = HeaderName::from_static("x-lateen-console");

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Look.
    Viewer,
    /// Change objects, too.
    Operator,
}

pub(super) fn pages() -> Router<Arc<Api>> {
    Router::new().route("/assets/{name}", get(assets::asset)).fallback(get(assets::page))
}

/// Before everything on the console's port, which is on loopback.
///
/// Refuses names that are not this machine's: a page elsewhere could otherwise point a name of its own here and read the mesh
/// through its visitor's browser (DNS rebinding). What is more than a look must come from our own page, by `Origin` and
/// [`INTENT`]. Objects are changed by whoever has the owner's key; where they are kept on a cluster, its own rules say who may
/// write them, and nobody may here.
pub(super) async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = text(headers, header::HOST);
    let mut response = if !is_own(host) {
        (StatusCode::MISDIRECTED_REQUEST, "this is not the name of a Lateen console\n").into_response()
    } else if !request.method().is_safe() && !is_meant(headers, host) {
        (StatusCode::FORBIDDEN, "this does not come from the console's own page\n").into_response()
    } else {
        let key = headers.get(INTENT).is_some_and(|shown| api.console_key.is(shown.as_bytes()));
        let role = if key && api.source.is_writable() { Role::Operator } else { Role::Viewer };
        request.extensions_mut().insert(role);
        next.run(request).await
    };
    let own = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    response.headers_mut().extend(own);
    response
}

/// Lets through who may change objects.
pub(super) async fn operators(request: Request, next: Next) -> Response {
    match request.extensions().get::<Role>() {
        Some(Role::Operator) => next.run(request).await,
        _ => {
            let message = "only whoever has the key of this mesh's owner may change objects: `lateen dashboard` opens the console with it";
            (StatusCode::FORBIDDEN, axum::Json(serde_json::json!({"message": message}))).into_response()
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether a request is one of our page's: browsers say where a page is from, and other programs do not.
fn is_meant(headers: &HeaderMap, host: &str) -> bool {
    let from = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    headers.contains_key(INTENT) && from.is_none_or(|from| from == format!("http://{host}"))
}

fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || ["lateend.istio-system.svc", "lateend.istio-system.svc.cluster.local"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for (host, own) in [
            ("127.0.0.1:15080", true),
            ("localhost:15080", true),
            ("[::1]:15080", true),
            ("lateend.istio-system.svc:15080", true),
            ("evil.example:15080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_own(host), own, "{host}");
        }
    }

    #[test]
    fn what_is_more_than_a_look_comes_from_the_console() {
        let from = |origin: Option<&'static str>, intent: bool| {
            let mut headers = HeaderMap::new();
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            headers.extend(intent.then(|| (INTENT, HeaderValue::from_static("1"))));
            is_meant(&headers, "localhost:15080")
        };
        assert!(from(Some("http://localhost:15080"), true));
        assert!(from(None, true), "no browser");
        assert!(!from(Some("http://localhost:15080"), false), "a form of a page that was framed");
        for other in ["http://localhost:8080", "https://evil.example", "null", "http://localhost:15080.evil.example"] {
            assert!(!from(Some(other), true), "{other}");
        }
    }
}

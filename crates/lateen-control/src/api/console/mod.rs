//! The console's pages, which are part of the program, and who may look at them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Api;

const PAGE: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

/// Nothing but our own files may run in the page, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'";

pub(super) fn pages() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(|| async { page("text/html; charset=utf-8", PAGE) }))
        .route("/style.css", get(|| async { page("text/css; charset=utf-8", STYLE) }))
        .route("/script.js", get(|| async { page("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/icon.svg", get(|| async { page("image/svg+xml", ICON) }))
}

fn page(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text)
}

/// Refuses names that are not this machine's: a page elsewhere could otherwise point a name of its own here and read the
/// mesh through its visitor's browser (DNS rebinding).
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_own(host) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "this is not the name of a Lateen console\n").into_response()
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
}

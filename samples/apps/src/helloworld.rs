//! helloworld: `GET /hello` says which version and which instance answered.

use axum::Router;
use axum::routing::get;

pub(crate) fn router(version: String) -> Router {
    let greeting = format!("Hello version: {version}, instance: {}\n", crate::instance());
    Router::new()
        .route("/hello", get(move || std::future::ready(greeting)))
        .route("/health", get(|| std::future::ready("Helloworld is healthy\n")))
}

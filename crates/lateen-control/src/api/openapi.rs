//! The API's description (OpenAPI 3.1), made of the very types that it answers with. The console's types are made of it:
//! `console/openapi.json` is what this gives, and a test holds that it is.

use axum::Json;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::{about, configuration, events, explaining, inventory, preview, proxy_config};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lateen",
        description = "What the console and the command line ask of the control plane.",
        version = "v1"
    ),
    paths(
        about::show,
        inventory::show,
        configuration::list,
        configuration::show,
        preview::show,
        proxy_config::show,
        explaining::ask,
        explaining::access,
        events::stream,
    ),
    components(schemas(Findings, Proxies))
)]
struct Description;

/// `GET /api/v1/openapi.json`
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

/// `lateen_api::Diagnostic`, as it is written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    code: String,
    #[schema(inline)]
    severity: Severity,
    object: Option<Key>,
    file: String,
    /// From 1; 0 when the object came from no text.
    line: u32,
    column: u32,
    /// `spec.http[0]`; left out for the object as a whole.
    field: Option<String>,
    message: String,
    /// What to do about it.
    help: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "described, not made: it is lateen_api::Severity that is written")]
enum Severity {
    Info,
    Warning,
    Error,
}

/// An object's name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    kind: String,
    /// Left out for objects of no namespace.
    namespace: Option<String>,
    name: String,
}

/// `GET /api/v1/diagnostics`
#[derive(Debug, Serialize, ToSchema)]
struct Findings {
    revision: u64,
    diagnostics: Vec<Finding>,
}

/// `GET /api/v1/proxies`
#[derive(Debug, Serialize, ToSchema)]
struct Proxies {
    revision: u64,
    proxies: Vec<crate::push::ProxyStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_built_for_this_very_api() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../console/openapi.json");
        let now = Description::openapi().to_pretty_json().expect("it is JSON") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &now).expect("the console is part of the tree");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == now,
            "console/openapi.json is stale: UPDATE=1 and this test write it, and `npm run types` in console/ what follows"
        );
    }
}

//! What this control plane is, and what the caller may do here.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::console::Role;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    pub(super) version: String,
    /// The newest configuration's.
    pub(super) revision: u64,
    #[schema(inline)]
    pub(super) source: SourceKind,
    /// Objects can be written through this API, by whoever may.
    pub(super) writable: bool,
    #[schema(inline)]
    pub(super) role: Role,
    pub(super) root_namespace: String,
    pub(super) trust_domain: String,
}

/// Where objects live.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SourceKind {
    Files,
    Kubernetes,
}

/// `GET /api/v1/about`
#[utoipa::path(get, path = "/api/v1/about", operation_id = "about", responses((status = 200, body = About)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Extension(role): Extension<Role>) -> Json<About> {
    let (snapshot, writable) = (api.pushed.snapshot(), api.source.is_writable());
    let config = snapshot.mesh().config();
    Json(About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: snapshot.revision,
        source: if writable { SourceKind::Files } else { SourceKind::Kubernetes },
        writable,
        role,
        root_namespace: config.root_namespace.clone(),
        trust_domain: config.trust_domain.clone(),
    })
}

//! What the proxy of a pod is sent: its listeners, routes, clusters and endpoints. Secrets are no part of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use lateen_mesh::{Mesh, ProxyKind};
use lateen_translate::{Cache, Named, ProxyView, resources, type_url};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Failure, explaining};

/// Types that are shown, with the words for them.
pub(super) const TYPES: [(&str, &str); 4] = [
    (type_url::LISTENER, "listener"),
    (type_url::ROUTE, "route"),
    (type_url::CLUSTER, "cluster"),
    (type_url::ENDPOINT, "endpoint"),
];
/// A longer text is not shown, in bytes; with all metrics, a listener of several ports has a third of a million.
const MOST_TEXT: usize = 512 << 10;
/// Nor are more texts than this many bytes in one answer.
const MOST: usize = 4 << 20;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProxyResources {
    pub(super) revision: u64,
    pub(super) resources: Vec<ProxyResource>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProxyResource {
    /// `listener`, `route`, `cluster` or `endpoint`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// YAML; empty where it is too long to be shown.
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct OfPod {
    namespace: String,
    pod: String,
}

/// `GET /api/v1/proxy-config?namespace=N&pod=P`
#[utoipa::path(get, path = "/api/v1/proxy-config", operation_id = "proxyConfig",
    params(("namespace" = String, Query), ("pod" = String, Query)),
    responses((status = 200, body = ProxyResources), (status = 404, body = super::Complaint)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Query(OfPod { namespace, pod }): Query<OfPod>,
) -> Result<Json<ProxyResources>, Failure> {
    let found = explaining::in_turn(&api, move |snapshot| {
        let missing = || Failure::NotFound(format!("there is no pod {namespace}/{pod} with a proxy"));
        let resources = of(snapshot.mesh(), &namespace, &pod).ok_or_else(missing)?;
        Ok(ProxyResources { revision: snapshot.revision, resources })
    });
    found.await?.map(Json)
}

fn of(mesh: &Mesh, namespace: &str, pod: &str) -> Option<Vec<ProxyResource>> {
    let view = ProxyView::of(mesh, namespace, pod).filter(|view| view.workload.proxy != ProxyKind::None)?;
    let (cache, mut left) = (Cache::new(), MOST);
    let mut out = Vec::new();
    for (url, kind) in TYPES {
        for named in resources(mesh, &view, url, &cache) {
            let text = if left > 0 { yaml(&named) } else { String::new() };
            left = left.saturating_sub(text.len());
            out.push(ProxyResource { kind, name: named.name.to_string(), text });
        }
    }
    Some(out)
}

/// A resource for people; nothing, where it is too long for them.
pub(super) fn yaml(named: &Named) -> String {
    let json = lateen_xds::json::any_to_json(named.type_url, &named.pieces.concat());
    let text = json.and_then(|json| lateen_xds::json::to_yaml(&json));
    text.ok().filter(|text| text.len() <= MOST_TEXT).unwrap_or_default()
}

//! What a proxy tells of requests, and whom: Telemetry objects, and the mesh config where these say nothing.
//!
//! What several objects say of one thing goes together as in Istio's `pilot/pkg/model/telemetry.go`: later ones say more.

mod logging;
mod merge;
mod tracing;

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use lateen_api::extension_providers::HttpHeader;

use crate::cache::Input;
use crate::filters::http_connection_manager::Class;
use crate::provider;
use crate::view::View;

pub(crate) use logging::access_logs;
pub(crate) use merge::Mode;
pub(crate) use tracing::trace;

impl Class {
    /// For whom the listener is, in Istio's words; a gateway is a client.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::SidecarInbound => Mode::Server,
            Self::SidecarOutbound | Self::Gateway => Mode::Client,
        }
    }
}

/// On what of the proxy itself the outbound listeners depend: other proxies may have the same.
pub(crate) fn inputs(view: &View<'_>) -> Vec<Input> {
    let mut inputs: Vec<Input> =
        view.mesh.telemetries(&view.proxy.workload).into_iter().map(|object| object as Input).collect();
    // Spans tell of the workload.
    if view.mesh.config().may_trace() {
        inputs.push(Arc::clone(&view.proxy.workload) as Input);
    }
    inputs
}

/// Names of the clusters of all collectors that a proxy may be told of.
pub(crate) fn clusters(view: &View<'_>) -> Vec<String> {
    let collectors = view.mesh.config().extension_providers.iter().filter_map(|provider| provider.collector());
    collectors.filter_map(|(service, port)| Some(provider::reach(view, service, port, |_| true)?.cluster)).collect()
}

fn headers(headers: &[HttpHeader]) -> Vec<HeaderValue> {
    let one = |header: &HttpHeader| HeaderValue {
        key: header.name.clone(),
        value: header.value.clone(),
        ..HeaderValue::default()
    };
    headers.iter().map(one).collect()
}

//! What a proxy tells of requests, and whom: Telemetry objects, and the mesh config where these say nothing.
//!
//! What several objects say of one thing goes together as in Istio's `pilot/pkg/model/telemetry.go`: later ones say more.

mod labels;
mod logging;
mod merge;
mod metrics;
mod overrides;
mod tracing;

use std::sync::Arc;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::TcpAccessLogOptions};
use lateen_api::extension_providers::HttpHeader;
use lateen_mesh::Service;

use crate::cache::Input;
use crate::filters::http_connection_manager::Class;
use crate::provider;
use crate::view::View;

use merge::Mode;
pub(crate) use tracing::trace;

impl Class {
    /// For whom the listener is, in Istio's words; a gateway is a client.
    fn mode(self) -> Mode {
        match self {
            Self::SidecarInbound => Mode::Server,
            Self::SidecarOutbound | Self::Gateway => Mode::Client,
        }
    }
}

/// On which side of a connection a proxy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side<'a> {
    /// For the workload that calls.
    Client,
    /// For clients outside.
    Gateway,
    /// For the workload that is called, by the service that it stands behind; none: nobody has declared the port.
    Server(Option<&'a Service>),
}

impl Side<'_> {
    fn mode(self) -> Mode {
        match self {
            Self::Server(_) => Mode::Server,
            Self::Client | Self::Gateway => Mode::Client,
        }
    }
}

/// The loggers of an HTTP connection manager: lines, and numbers.
pub(crate) fn http(view: &View<'_>, side: Side<'_>) -> Vec<AccessLog> {
    let mut logs = logging::access_logs(view, side.mode());
    logs.extend(metrics::http(view, side));
    logs
}

/// The same, of a TCP proxy.
pub(crate) fn tcp(view: &View<'_>, side: Side<'_>, proxy: &mut TcpProxy) {
    proxy.access_log = logging::access_logs(view, side.mode());
    let numbers = metrics::tcp(view, side);
    if !numbers.is_empty() {
        // There is a record of each beginning then, too, of which lines do not tell.
        proxy.access_log.iter_mut().for_each(metrics::at_the_end);
        proxy.access_log_options =
            Some(TcpAccessLogOptions { flush_access_log_on_connected: true, ..TcpAccessLogOptions::default() });
        proxy.access_log.extend(numbers);
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

//! What the mesh config says of traffic where no object says anything: `MeshConfig`'s default policies.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::mesh_config::MeshConfig;
use crate::networking::destination_rule::{ConnectionPool, OutlierDetection};
use crate::validate::check::Check;
use crate::validate::{destination_rule, http_route};
use crate::yaml::Positions;

/// `MeshConfig.DefaultTrafficPolicy`: a block holds where a DestinationRule has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultTrafficPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// `MeshConfig.H2UpgradePolicy`: whether requests go on in HTTP/2 to ports that are declared as HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Http2Upgrade {
    #[default]
    DoNotUpgrade,
    Upgrade,
}

/// `MeshConfig.InboundTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InboundTrafficPolicy {
    pub mode: InboundMode,
}

/// Where sidecars reach their application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundMode {
    /// At the address that the client called: the application may listen on the pod's address or on all.
    #[default]
    Passthrough,
    /// On loopback.
    Localhost,
}

/// What is wrong with the policies.
pub(crate) fn check(file: &str, positions: &Positions, config: &MeshConfig) -> Vec<Diagnostic> {
    let mut check = Check::of_settings(file, positions);
    if let Some(retries) = &config.default_http_retry_policy {
        http_route::retries(&mut check, "defaultHttpRetryPolicy", retries);
    }
    if let Some(retries) = &config.default_inbound_http_retry_policy {
        let field = "defaultInboundHttpRetryPolicy";
        http_route::retries(&mut check, field, retries);
        // There is one application, and no one who waits for its answer sets a time for each try.
        let others = [
            ("perTryTimeout", retries.per_try_timeout.is_some()),
            ("retryRemoteLocalities", retries.retry_remote_localities.is_some()),
            ("retryIgnorePreviousHosts", retries.retry_ignore_previous_hosts.is_some()),
        ];
        for (name, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
            check.warn(format!("{field}.{name}"), format!("`{name}` has no effect towards the one application"));
        }
        if retries.attempts == 0 && retries.backoff.is_some() {
            check.error(format!("{field}.backoff"), "a backoff is given, and the attempts are 0");
        }
    }
    if let Some(pool) = &config.default_traffic_policy.connection_pool {
        destination_rule::connection_pool(&mut check, "defaultTrafficPolicy.connectionPool", pool);
    }
    if let Some(outlier) = &config.default_traffic_policy.outlier_detection {
        destination_rule::outlier_detection(&mut check, "defaultTrafficPolicy.outlierDetection", outlier);
    }
    if let Some(keepalive) = &config.tcp_keepalive {
        destination_rule::keepalive(&mut check, "tcpKeepalive", keepalive);
    }
    check.finish()
}

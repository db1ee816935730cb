//! Services that a proxy itself calls by gRPC: `envoy.config.core.v3.GrpcService`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use http::{HeaderName, HeaderValue};

use crate::config::error::{At, refuse};

/// Who is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcService {
    pub cluster: Arc<str>,
    /// What the service is called.
    pub authority: String,
    /// None: as long as it takes.
    pub timeout: Option<Duration>,
    /// Sent with every call.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

impl GrpcService {
    /// `timeout`: of the filter that calls, which goes before the service's own. Zero: none.
    pub(crate) fn from_xds(service: Option<&core::GrpcService>, timeout: Duration, at: &At) -> Option<Self> {
        use core::grpc_service::TargetSpecifier;
        let Some(service) = service else {
            at.error("is required");
            return None;
        };
        refuse!(at, service; retry_policy);
        let target = match service.target_specifier.as_ref() {
            Some(TargetSpecifier::EnvoyGrpc(target)) => target,
            Some(TargetSpecifier::GoogleGrpc(_)) => {
                at.field("google_grpc").error("is not supported; use envoy_grpc");
                return None;
            }
            None => {
                at.error("needs `envoy_grpc`");
                return None;
            }
        };
        let of_target = at.field("envoy_grpc");
        refuse!(of_target, target; retry_policy, max_receive_message_length, skip_envoy_headers);
        if target.cluster_name.is_empty() {
            of_target.field("cluster_name").error("is required");
        }
        let authority = if target.authority.is_empty() { &target.cluster_name } else { &target.authority };
        Some(Self {
            cluster: target.cluster_name.as_str().into(),
            authority: authority.clone(),
            timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
            metadata: metadata(&service.initial_metadata, at)?,
        })
    }
}

fn metadata(pairs: &[core::HeaderValue], at: &At) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let read = |(index, pair): (usize, &core::HeaderValue)| {
        let at = at.index("initial_metadata", index);
        let bytes = if pair.raw_value.is_empty() { pair.value.as_bytes() } else { &pair.raw_value };
        if bytes.contains(&b'%') {
            at.field("value").error("operators are not supported here");
            return None;
        }
        match (HeaderName::try_from(pair.key.as_str()), HeaderValue::from_bytes(bytes)) {
            (Ok(name), Ok(value)) => Some((name, value)),
            _ => {
                at.error("is no header");
                None
            }
        }
    };
    pairs.iter().enumerate().map(read).collect()
}

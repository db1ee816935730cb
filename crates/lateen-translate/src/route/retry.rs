//! Retry policies: Istio's defaults and what a VirtualService writes in their place.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use lateen_api::networking::virtual_service::Retries;
use lateen_mesh::MeshConfig;
use route::retry_policy;

use crate::proto::{duration, uint32};
use crate::wire;

/// What is retried when a VirtualService does not say. No codes go with `retriable-status-codes`, so a 503 answered
/// by the application is final.
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Istio's own policy: two more attempts, on other endpoints unless a hash fixes the endpoint.
fn default(consistent_hash: bool) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: Some(uint32(2)),
        retry_host_predicate: if consistent_hash { Vec::new() } else { vec![not_the_same_host()] },
        host_selection_retry_max_attempts: 5,
        ..route::RetryPolicy::default()
    }
}

/// The policy between a sidecar and its application: only what the application cannot have seen, or what the mesh config
/// says (`defaultInboundHttpRetryPolicy`). `None` when `attempts: 0` switches retries off.
pub(crate) fn inbound(config: &MeshConfig) -> Option<route::RetryPolicy> {
    let mut policy = route::RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(uint32(2)),
        ..route::RetryPolicy::default()
    };
    if let Some(retries) = &config.default_inbound_retries {
        put(&mut policy, retries)?;
    }
    Some(policy)
}

/// The policy of a route: its own, the mesh config's (`defaultHttpRetryPolicy`), or Istio's. `None` when `attempts: 0`
/// switches retries off.
pub(crate) fn policy(
    config: &MeshConfig,
    retries: Option<&Retries>,
    consistent_hash: bool,
) -> Option<route::RetryPolicy> {
    let mut policy = default(consistent_hash);
    let Some(retries) = retries.or(config.default_retries.as_ref()) else { return Some(policy) };
    put(&mut policy, retries)?;
    policy.per_try_timeout = retries.per_try_timeout.map(|timeout| duration(timeout.0));
    match retries.retry_ignore_previous_hosts {
        Some(true) => policy.retry_host_predicate = vec![not_the_same_host()],
        Some(false) => policy.retry_host_predicate.clear(),
        None => {}
    }
    policy.retry_priority = retries.retry_remote_localities.unwrap_or(false).then(not_the_same_priority);
    Some(policy)
}

/// How often, after what, and how soon.
fn put(policy: &mut route::RetryPolicy, retries: &Retries) -> Option<()> {
    let attempts = u32::try_from(retries.attempts).ok().filter(|attempts| *attempts > 0)?;
    policy.num_retries = Some(uint32(attempts));
    if !retries.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = parse_retry_on(&retries.retry_on);
    }
    policy.retry_back_off = retries.backoff.map(|base| retry_policy::RetryBackOff {
        base_interval: Some(duration(base.0)),
        ..retry_policy::RetryBackOff::default()
    });
    Some(())
}

/// Splits `retryOn` into conditions and the status codes written among them (`5xx,503` has one of each).
fn parse_retry_on(retry_on: &str) -> (String, Vec<u32>) {
    let mut conditions = Vec::new();
    let mut codes = Vec::new();
    for part in retry_on.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => conditions.push(part),
        }
    }
    if !codes.is_empty() && !conditions.contains(&"retriable-status-codes") {
        conditions.push("retriable-status-codes");
    }
    (conditions.join(","), codes)
}

fn not_the_same_host() -> retry_policy::RetryHostPredicate {
    retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(wire::pack(
            &PreviousHostsPredicate::default(),
        ))),
    }
}

fn not_the_same_priority() -> retry_policy::RetryPriority {
    let config = PreviousPrioritiesConfig { update_frequency: 2 };
    retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(wire::pack(&config))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retries: Option<&Retries>, consistent_hash: bool) -> Option<route::RetryPolicy> {
        super::policy(&MeshConfig::default(), retries, consistent_hash)
    }

    fn attempts(attempts: i32) -> Retries {
        Retries { attempts, ..Retries::default() }
    }

    #[test]
    fn unset_means_two_retries_and_no_codes() {
        let policy = policy(None, false).expect("retries");
        assert_eq!(policy.num_retries, Some(uint32(2)));
        assert_eq!(policy.retry_on, DEFAULT_RETRY_ON);
        assert!(policy.retriable_status_codes.is_empty());
        assert_eq!(policy.retry_host_predicate.len(), 1);
        assert_eq!(policy.host_selection_retry_max_attempts, 5);
    }

    #[test]
    fn no_attempts_switches_retries_off() {
        assert_eq!(policy(Some(&attempts(0)), false), None);
        assert_eq!(policy(Some(&Retries::default()), false), None);
    }

    #[test]
    fn a_hash_keeps_retries_on_the_same_host() {
        assert!(policy(None, true).expect("retries").retry_host_predicate.is_empty());
        let asked = Retries { retry_ignore_previous_hosts: Some(true), ..attempts(1) };
        assert_eq!(policy(Some(&asked), true).expect("retries").retry_host_predicate.len(), 1);
    }

    #[test]
    fn numbers_in_retry_on_are_status_codes() {
        for (text, conditions, codes) in [
            ("5xx, 503,retriable-status-codes", "5xx,retriable-status-codes", &[503][..]),
            ("gateway-error,409,", "gateway-error,retriable-status-codes", &[409]),
            ("409,410", "retriable-status-codes", &[409, 410]),
            ("reset,7", "reset,7", &[]),
        ] {
            assert_eq!(parse_retry_on(text), (conditions.to_owned(), codes.to_vec()), "{text}");
        }
    }
}

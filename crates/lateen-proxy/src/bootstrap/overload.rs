//! How much the process takes on: its file descriptors, and how many connections they are for (Envoy's `overload_manager`,
//! of which the bound of downstream connections is honoured).
#![expect(unsafe_code, reason = "getrlimit(2) and setrlimit(2) have no safe wrapper among what is used here")]

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::overload::v3::resource_monitor::ConfigType;
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use prost::{Message as _, Name as _};

/// Descriptors that no connection gets, nor what it needs upstream: files, sockets that listen, the control plane, the admin
/// port.
const OWN: usize = 64;

/// How many connections there may be at a time: no more than the descriptors are enough for, whatever is `told`.
pub(super) fn most_connections(told: Option<usize>) -> usize {
    // Each has one to an upstream beside it.
    let enough = raise_descriptors().saturating_sub(OWN) / 2;
    told.unwrap_or(enough).min(enough)
}

/// The bound that a bootstrap names, if it does.
///
/// # Errors
/// What of `overload_manager` is not honoured.
pub(super) fn told(bootstrap: &Bootstrap) -> Result<Option<usize>, Vec<String>> {
    let Some(manager) = &bootstrap.overload_manager else { return Ok(None) };
    let at = "bootstrap: overload_manager";
    let (mut most, mut complaints) = (None, Vec::new());
    for (name, set) in [
        ("actions", !manager.actions.is_empty()),
        ("loadshed_points", !manager.loadshed_points.is_empty()),
        ("buffer_factory_config", manager.buffer_factory_config.is_some()),
    ] {
        if set {
            complaints.push(format!("{at}.{name}: is not supported"));
        }
    }
    for (index, monitor) in manager.resource_monitors.iter().enumerate() {
        let at = format!("{at}.resource_monitors[{index}]");
        let Some(ConfigType::TypedConfig(config)) = &monitor.config_type else {
            complaints.push(format!("{at}.typed_config: is required"));
            continue;
        };
        if config.type_url.rsplit('/').next() != Some(DownstreamConnectionsConfig::full_name().as_str()) {
            complaints.push(format!("{at}.typed_config: {} is not supported", config.type_url));
            continue;
        }
        match DownstreamConnectionsConfig::decode(&*config.value) {
            Ok(DownstreamConnectionsConfig { max_active_downstream_connections: bound @ 1.. }) => {
                most = usize::try_from(bound).ok();
            }
            Ok(_) => {
                complaints.push(format!("{at}.typed_config.max_active_downstream_connections: must be above zero"))
            }
            Err(error) => complaints.push(format!("{at}.typed_config: {error}")),
        }
    }
    if complaints.is_empty() { Ok(most) } else { Err(complaints) }
}

/// Asks for as many as the process may have, and tells how many it has. Systems give programs few at first for the sake of
/// those that use select(2).
fn raise_descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is what getrlimit writes to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return 1024;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is only read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(manager: &str) -> Bootstrap {
        lateen_xds::json::from_yaml(&format!("overload_manager: {manager}")).expect("it is a bootstrap")
    }

    const CONNECTIONS: &str =
        "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";

    #[test]
    fn a_bootstrap_bounds_connections_and_nothing_else() {
        let monitor = |bound: &str| {
            let config = format!("{{\"@type\": {CONNECTIONS}, {bound}}}");
            bootstrap(&format!("{{resource_monitors: [{{name: x, typed_config: {config}}}]}}"))
        };
        assert_eq!(told(&monitor("max_active_downstream_connections: 7")), Ok(Some(7)));
        assert_eq!(told(&Bootstrap::default()), Ok(None));
        assert!(most_connections(Some(7)) == 7 && most_connections(None) > 100);
        let complaint = "bootstrap: overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections: \
                         must be above zero";
        assert_eq!(told(&monitor("")), Err(vec![complaint.to_owned()]));
        let heap = "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";
        let other = bootstrap(&format!("{{resource_monitors: [{{name: heap, typed_config: {{\"@type\": {heap}}}}}]}}"));
        let complaint =
            format!("bootstrap: overload_manager.resource_monitors[0].typed_config: {heap} is not supported");
        assert_eq!(told(&other), Err(vec![complaint]));
        let actions = bootstrap("{actions: [{name: envoy.overload_actions.stop_accepting_requests}]}");
        assert_eq!(told(&actions), Err(vec!["bootstrap: overload_manager.actions: is not supported".to_owned()]));
    }
}

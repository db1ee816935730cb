//! Networks of clusters that are not known.

use crate::document::{items, text};
use crate::report::Report;
use crate::world::{CORE, World};

/// The registries that every control plane has.
const OWN: [&str; 3] = ["Kubernetes", "External", "Mock"];

pub(super) fn check(world: &World, report: &mut Report) {
    let Some(networks) = &world.mesh_networks else { return };
    let mut known: Vec<&str> = OWN.to_vec();
    for secret in world.each(CORE, "Secret") {
        if secret.labels.get("istio/multiCluster").is_some_and(|value| value == "true") {
            known.extend(secret.json["data"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()));
        }
    }
    for (name, network) in networks.json["networks"].as_object().into_iter().flatten() {
        for (index, endpoint) in items(&network["endpoints"]).iter().enumerate() {
            let registry = text(&endpoint["fromRegistry"]);
            if !registry.is_empty() && !known.contains(&registry) {
                let field = format!("networks.{name}.endpoints[{index}].fromRegistry");
                let message = format!("network {name} takes endpoints from `{registry}`, which is no known cluster");
                report.add(networks, "IST0126", &field, message);
            }
        }
    }
}

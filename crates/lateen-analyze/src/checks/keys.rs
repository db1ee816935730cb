//! Control planes of Istio that fetch the keys of tokens from wherever they are told.

use crate::document::{items, text};
use crate::report::Report;
use crate::world::{APPS, SECURITY, World};

/// So many names are told.
const SHOWN: usize = 5;

pub(super) fn check(world: &World, report: &mut Report) {
    let policies: Vec<String> = world.each(SECURITY, "RequestAuthentication").map(|it| it.full_name()).collect();
    if policies.is_empty() {
        return;
    }
    let is_istiod = |name: &str| name == "istiod";
    for document in world.each(APPS, "Deployment").filter(|it| it.labels.get("app").is_some_and(|app| is_istiod(app))) {
        let containers = items(&document.spec()["template"]["spec"]["containers"]);
        let is_restricted = containers.iter().flat_map(|container| items(&container["env"])).any(|variable| {
            text(&variable["name"]) == "BLOCKED_CIDRS_IN_JWKS_URIS" && !text(&variable["value"]).is_empty()
        });
        if !is_restricted {
            let mut shown = policies[..policies.len().min(SHOWN)].join(", ");
            if policies.len() > SHOWN {
                shown.push_str(&format!(" and {} more", policies.len() - SHOWN));
            }
            let message = format!("keys for RequestAuthentication {shown} are fetched from any address");
            report.add(document, "IST0175", "spec.template.spec.containers", message);
        }
    }
}

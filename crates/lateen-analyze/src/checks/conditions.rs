//! What controllers have left in `status.conditions`.

use crate::document::{items, text};
use crate::report::Report;
use crate::world::{CORE, GATEWAY_API, NETWORKING, SECURITY, World};

const BOUND: &[&str] = &["istio.io/WaypointBound"];
const ACCEPTED: &[&str] = &["ZtunnelAccepted", "WaypointAccepted"];
const PROGRAMMED: &[&str] = &["Accepted", "Programmed", "ResolvedRefs"];

/// The conditions of which `False` is bad news.
const KINDS: [(&str, &str, &[&str]); 7] = [
    (CORE, "Service", BOUND),
    (NETWORKING, "ServiceEntry", BOUND),
    (NETWORKING, "WorkloadEntry", BOUND),
    (SECURITY, "AuthorizationPolicy", ACCEPTED),
    (GATEWAY_API, "Gateway", PROGRAMMED),
    (GATEWAY_API, "HTTPRoute", PROGRAMMED),
    (GATEWAY_API, "GRPCRoute", PROGRAMMED),
];

pub(super) fn check(world: &World, report: &mut Report) {
    for (group, kind, wanted) in KINDS {
        for document in world.each(group, kind) {
            let status = &document.json["status"];
            let own = items(&status["conditions"]).iter().map(|condition| ("status.conditions".to_owned(), condition));
            // Routes have conditions for each parent.
            let parents = items(&status["parents"]).iter().enumerate().flat_map(|(index, parent)| {
                let field = format!("status.parents[{index}].conditions");
                items(&parent["conditions"]).iter().map(move |condition| (field.clone(), condition))
            });
            for (field, condition) in own.chain(parents) {
                let of = |key: &str| text(&condition[key]);
                let is_bad = wanted.contains(&of("type")) && of("status") == "False";
                // True, and yet part of the policy was left out.
                let is_half = of("type") == "WaypointAccepted" && of("reason") == "PartiallyInvalid";
                if is_bad || (kind == "AuthorizationPolicy" && is_half) {
                    let message =
                        format!("condition {} is {} ({}): {}", of("type"), of("status"), of("reason"), of("message"));
                    report.add(document, "IST0171", &field, message);
                }
            }
        }
    }
}

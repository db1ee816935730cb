//! Fields and kinds that are out of date.

use crate::document::{items, text};
use crate::report::Report;
use crate::world::{EXTENSIONS, NETWORKING, World};

/// Kinds of `rbac.istio.io`, which AuthorizationPolicy has replaced.
const REMOVED: [&str; 4] = ["ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"];

pub(super) fn check(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "VirtualService") {
        for (index, rule) in items(&document.spec()["http"]).iter().enumerate() {
            if rule["fault"]["delay"]["percent"].as_u64().is_some_and(|percent| percent > 0) {
                let field = format!("spec.http[{index}].fault.delay.percent");
                let help = "write `percentage: {value: …}`".to_owned();
                report.add_with_help(document, "IST0002", &field, "`percent` is out of date", Some(help));
            }
        }
    }
    for document in world.each(NETWORKING, "Sidecar") {
        if document.spec()["outboundTrafficPolicy"]["egressProxy"].is_object() {
            let field = "spec.outboundTrafficPolicy.egressProxy";
            let message = "`egressProxy` is deprecated by Istio, whose newer versions ignore it; it is honoured here";
            report.add(document, "IST0002", field, message);
        }
    }
    for document in world.each(EXTENSIONS, "CustomResourceDefinition") {
        let spec = document.spec();
        let kind = text(&spec["names"]["kind"]);
        if text(&spec["group"]) == "rbac.istio.io" && REMOVED.contains(&kind) {
            let message = format!("{kind} of rbac.istio.io is gone; AuthorizationPolicy has taken its place");
            report.add(document, "IST0002", "spec.names.kind", message);
        }
    }
}

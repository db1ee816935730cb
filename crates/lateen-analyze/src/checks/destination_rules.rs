//! TLS towards servers that nobody checks.

use serde_json::Value;

use crate::document::{Document, items, text};
use crate::report::Report;
use crate::world::{NETWORKING, World};

pub(super) fn roots(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "DestinationRule") {
        let policy = &document.spec()["trafficPolicy"];
        let host = text(&document.spec()["host"]);
        if is_blind(&policy["tls"], document) {
            let message = format!("TLS mode {} for `{host}` without roots to trust", text(&policy["tls"]["mode"]));
            report.add(document, "IST0128", "spec.trafficPolicy.tls", message);
        }
        for (index, port) in items(&policy["portLevelSettings"]).iter().enumerate() {
            if is_blind(&port["tls"], document) {
                let message = format!(
                    "TLS mode {} for `{host}` without roots to trust, on port {}",
                    text(&port["tls"]["mode"]),
                    port["port"]["number"]
                );
                report.add(document, "IST0129", &format!("spec.trafficPolicy.portLevelSettings[{index}].tls"), message);
            }
        }
    }
}

/// `credentialName` counts where a workloadSelector says who is to read the Secret.
fn is_blind(tls: &Value, document: &Document) -> bool {
    let by_secret = !text(&tls["credentialName"]).is_empty() && document.spec()["workloadSelector"].is_object();
    matches!(text(&tls["mode"]), "SIMPLE" | "MUTUAL") && text(&tls["caCertificates"]).is_empty() && !by_secret
}

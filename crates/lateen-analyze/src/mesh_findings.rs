//! Findings that need the mesh's indices (`lateen_mesh::analyze`), with the names of Istio's analyzers that say the same.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, Object};
use lateen_mesh::MeshConfig;

use crate::document::{items, labels, selects, text};
use crate::report::Report;
use crate::world::{CORE, NETWORKING, World};

const GATEWAYS: &str = "virtualservice.GatewayAnalyzer";

pub(crate) fn add(objects: &[Object], world: &World, settings: MeshConfig, report: &mut Report) {
    let (running, mesh) = crate::mesh(objects, settings);
    let mut hosts: BTreeMap<Option<Subject>, Diagnostic> = BTreeMap::new();
    for found in lateen_mesh::analyze(&running, &mesh) {
        let analyzer = analyzer_of(&found);
        match found.code.as_str() {
            // The mesh does not know of Kubernetes' own Gateways and of Nodes; the texts do.
            _ if analyzer == GATEWAYS => {}
            "IST0173" if selects_by_node(&found, world) => {}
            // One finding for all hosts that a rule shares with others.
            "IST0109" => match hosts.entry(found.object.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(found)),
                Entry::Occupied(mut entry) => {
                    let told = &mut entry.get_mut().message;
                    told.push_str("; ");
                    told.push_str(&found.message);
                }
            },
            _ => report.found(found, vec![analyzer]),
        }
    }
    for found in hosts.into_values() {
        let analyzer = analyzer_of(&found);
        report.found(found, vec![analyzer]);
    }
}

/// Whether a subset selects pods by what their nodes say of where they are.
fn selects_by_node(found: &Diagnostic, world: &World) -> bool {
    let Some(object) = &found.object else { return false };
    let Some(rule) = world.find(NETWORKING, "DestinationRule", &object.namespace, &object.name) else { return false };
    let index = found.field.trim_start_matches("spec.subsets[").trim_end_matches(']');
    let Some(subset) = index.parse().ok().and_then(|index: usize| items(&rule.spec()["subsets"]).get(index)) else {
        return false;
    };
    let wanted = labels(&subset["labels"]);
    world.pods().any(|pod| {
        let name = text(&pod.spec["nodeName"]);
        let Some(node) = world.find(CORE, "Node", "", name) else { return false };
        let mut all = pod.labels.clone();
        let places = node.labels.iter().filter(|(key, value)| key.contains("topology.") && !value.is_empty());
        all.extend(places.map(|(key, value)| (key.clone(), value.clone())));
        all.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
        pod.namespace() == rule.namespace && selects(&wanted, &all)
    })
}

fn analyzer_of(found: &Diagnostic) -> &'static str {
    let kind = found.object.as_ref().map_or("", |object| object.kind.as_str());
    match (found.code.as_str(), kind) {
        ("IST0101", "VirtualService") if found.field.ends_with(".subset") => "virtualservice.DestinationRuleAnalyzer",
        ("IST0101", "VirtualService") if found.field.starts_with("spec.gateways") => GATEWAYS,
        ("IST0101" | "IST0112", "VirtualService") => "virtualservice.DestinationHostAnalyzer",
        ("IST0101", "Gateway") if found.field == "spec.selector" => "gateway.IngressGatewayPortAnalyzer",
        ("IST0101", "Gateway") => "gateway.SecretAnalyzer",
        ("IST0101" | "IST0110" | "IST0111", "Sidecar") => "sidecar.SelectorAnalyzer",
        ("IST0109", _) => "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        ("IST0127", "AuthorizationPolicy") => "auth.AuthorizationPoliciesAnalyzer",
        ("IST0132", _) => GATEWAYS,
        ("IST0138", _) => "gateway.CertificateAnalyzer",
        ("IST0145", _) => "gateway.ConflictingGatewayAnalyzer",
        ("IST0173" | "IST0174", _) => "destinationrule.SubsetSelectPodAnalyzer",
        _ => "lateen.MeshAnalyzer",
    }
}

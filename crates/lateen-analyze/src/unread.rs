//! Kinds that the mesh does not read: which of them are none of its business, and which somebody expects it to apply.

use lateen_api::diagnostic::code::{UNSUPPORTED_KIND, WRONG_TYPE};
use lateen_api::yaml::{self, Node, Value};
use lateen_api::{Diagnostic, Severity};

use crate::Text;

/// Kinds of Kubernetes that stand beside an application's Services and Deployments.
#[rustfmt::skip]
const KUBERNETES: [&str; 35] = [
    "ClusterRole", "ClusterRoleBinding", "ControllerRevision", "CronJob", "CSIDriver",
    "CustomResourceDefinition", "DaemonSet", "Endpoints", "EndpointSlice", "Event", "HorizontalPodAutoscaler",
    "IngressClass", "Job", "Lease", "LimitRange", "MutatingWebhookConfiguration", "NetworkPolicy",
    "Node", "PersistentVolume", "PersistentVolumeClaim", "PodDisruptionBudget", "PodTemplate", "PriorityClass",
    "ReplicaSet", "ReplicationController", "ResourceQuota", "Role", "RoleBinding", "RuntimeClass",
    "StatefulSet", "StorageClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration", "APIService",
];

/// Kinds that say something of traffic, and that have no effect here.
#[rustfmt::skip]
const WITHOUT_EFFECT: [&str; 4] = ["EnvoyFilter", "WasmPlugin", "Ingress", "UDPRoute"];

/// Findings of parsing a text as they count for files, of which not all are for the mesh.
pub(crate) fn judged(text: &Text<'_>, found: Vec<Diagnostic>) -> impl Iterator<Item = Diagnostic> {
    let others = no_objects(text);
    let lines: Vec<u32> = others.iter().map(|told| told.line).collect();
    let is_of_another = move |found: &Diagnostic| found.object.is_none() && lines.contains(&found.line);
    found.into_iter().filter(move |found| !is_of_another(found)).filter_map(of_kind).chain(others)
}

/// Documents that are no objects of Kubernetes at all (values of a chart, settings of some tool), each told once.
fn no_objects(text: &Text<'_>) -> Vec<Diagnostic> {
    let is_other = |node: &Node| {
        let is_map = matches!(&node.value, Value::Mapping(entries) if !entries.is_empty());
        is_map && ["apiVersion", "kind", "metadata", "spec"].iter().all(|field| node.get(field).is_none())
    };
    let told = |node: Node| Diagnostic {
        code: WRONG_TYPE.to_owned(),
        severity: Severity::Info,
        object: None,
        file: text.name.to_owned(),
        line: node.line,
        column: node.column,
        field: String::new(),
        message: "no object of Kubernetes, with neither apiVersion nor kind: it is left out".to_owned(),
        help: None,
    };
    yaml::documents(text.text).into_iter().flatten().filter(is_other).map(told).collect()
}

/// A finding about a kind: nothing is said of those that are none of the mesh's business.
fn of_kind(found: Diagnostic) -> Option<Diagnostic> {
    let kind = found.object.as_ref().map_or("", |object| object.kind.as_str());
    // A Gateway that is not Istio's is one of the Gateway API.
    let has_no_effect =
        WITHOUT_EFFECT.contains(&kind) || (kind == "Gateway" && found.message.contains("gateway.networking.k8s.io"));
    match found.code.as_str() {
        UNSUPPORTED_KIND if KUBERNETES.contains(&kind) => None,
        UNSUPPORTED_KIND if has_no_effect => Some(Diagnostic {
            severity: Severity::Warning,
            message: format!("{}: it has no effect", found.message),
            ..found
        }),
        _ => Some(found),
    }
}

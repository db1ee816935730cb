//! What the control plane may do: reading what a mesh is made of, asking about tokens, saying what is wrong, and little else. The
//! tests of `tests/kubernetes` run with these rights and no others.

use serde_json::{Value, json};

use super::{NAMESPACE, Values, metadata, name, webhook_configuration};
use crate::leader::LEASE;

/// Groups of the kinds that are read, and whose status is written.
const OUR_GROUPS: [&str; 4] = ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "policy.lateen.dev"];
const READ: [&str; 3] = ["get", "list", "watch"];

pub(super) fn objects(values: &Values) -> Vec<Value> {
    let name = name(&values.revision);
    let account = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
    let of = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(&name)}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
            "rules": everywhere(&webhook_configuration(&values.revision))}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": of("ClusterRole"), "subjects": account}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata(&name), "rules": at_home()}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata(&name),
            "roleRef": of("Role"), "subjects": account}),
    ]
}

fn everywhere(webhooks: &str) -> Value {
    json!([
        {"apiGroups": [""], "resources": ["namespaces", "serviceaccounts", "services", "pods", "secrets"], "verbs": READ},
        {"apiGroups": OUR_GROUPS, "resources": ["*"], "verbs": READ},
        // What becomes of an object is said in its status, what is wrong with it in an Event, too.
        {"apiGroups": OUR_GROUPS, "resources": ["*/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        // The certificate that pods' proxies know the control plane by is in every namespace.
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["istio-ca-root-cert"],
            "verbs": ["get", "list", "watch", "patch"]},
        // Tags are webhooks of their own, and bring the right to change them.
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"], "verbs": READ},
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [webhooks], "verbs": ["patch"]},
    ])
}

/// In the control plane's own namespace: the injector's configuration, the mesh's authority, which it makes if nobody has, and the
/// lease by which one replica speaks for all.
fn at_home() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["istio-sidecar-injector"], "verbs": READ},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [LEASE], "verbs": ["get", "update"]},
    ])
}

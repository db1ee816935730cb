//! A tag: a name that namespaces ask for, and that stands for a revision. It is a webhook configuration that leads to that
//! revision's control plane, and the right of that control plane to put its certificates in.

use serde_json::{Value, json};

use super::{INSTALL_LABEL, NAMESPACE, REVISION_LABEL, name, webhooks};

/// On the objects of a tag, with its name.
pub const TAG_LABEL: &str = "istio.io/tag";

/// `lateen-tag-prod`: the name of each of a tag's objects.
pub fn tag_name(tag: &str) -> String {
    format!("lateen-tag-{tag}")
}

/// The objects of a tag.
pub fn objects(tag: &str, revision: &str) -> Vec<Value> {
    let named = tag_name(tag);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": named});
    let mut objects = vec![
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": named},
            "rules": [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
                "resourceNames": [named], "verbs": ["patch"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": named},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name(revision), "namespace": NAMESPACE}]}),
        webhooks::configuration(&named, tag, revision),
    ];
    for object in &mut objects {
        object["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "lateen", REVISION_LABEL: revision,
            TAG_LABEL: tag, INSTALL_LABEL: format!("tag.{tag}")});
    }
    objects
}

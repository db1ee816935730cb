//! Whose pods the injector is asked about (Istio: `mutatingwebhook.yaml`): those of namespaces that say so, and those that say so
//! themselves. The certificates are put in by lateend. Where lateend cannot be reached, such pods are not made, and all others are.

use serde_json::{Value, json};

use super::{DEFAULT_REVISION, NAMESPACE, REVISION_LABEL, Values, name, webhook_configuration};

const NAMESPACE_LABEL: &str = "istio-injection";
const INJECT: &str = "sidecar.istio.io/inject";
/// The cluster's own, in which nothing is ever injected.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Of a revision.
pub(super) fn of_revision(values: &Values) -> Value {
    configuration(&webhook_configuration(&values.revision), &values.revision, &values.revision)
}

/// A configuration that has the control plane of `revision` asked about the pods that want `wanted`: a revision, or a tag that
/// stands for one.
pub(super) fn configuration(name: &str, wanted: &str, revision: &str) -> Value {
    let is_default = wanted == DEFAULT_REVISION;
    let mut webhooks = vec![by_revision_of_namespace(wanted, revision), by_revision_of_pod(wanted, revision)];
    if is_default {
        webhooks.insert(0, by_namespace(revision));
        webhooks.push(by_pod(revision));
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": webhooks})
}

/// `istio-injection=enabled`.
fn by_namespace(revision: &str) -> Value {
    webhook("namespace", revision, json!([is_in(NAMESPACE_LABEL, "enabled")]), json!([is_not(INJECT, &["false"])]))
}

/// The namespace's `istio.io/rev`.
fn by_revision_of_namespace(wanted: &str, revision: &str) -> Value {
    let namespace = json!([is_in(REVISION_LABEL, wanted), is_absent(NAMESPACE_LABEL)]);
    webhook("rev.namespace", revision, namespace, json!([is_not(INJECT, &["false"])]))
}

/// The pod's `sidecar.istio.io/inject=true`, where neither says which revision.
fn by_pod(revision: &str) -> Value {
    webhook("object", revision, silent_namespace(), json!([is_in(INJECT, "true"), is_absent(REVISION_LABEL)]))
}

/// The pod's `istio.io/rev`.
fn by_revision_of_pod(wanted: &str, revision: &str) -> Value {
    webhook(
        "rev.object",
        revision,
        silent_namespace(),
        json!([is_not(INJECT, &["false"]), is_in(REVISION_LABEL, wanted)]),
    )
}

fn silent_namespace() -> Value {
    json!([is_absent(NAMESPACE_LABEL), is_absent(REVISION_LABEL), is_not("kubernetes.io/metadata.name", &SYSTEM)])
}

fn is_in(key: &str, value: &str) -> Value {
    json!({"key": key, "operator": "In", "values": [value]})
}

fn is_not(key: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": "NotIn", "values": values})
}

fn is_absent(key: &str) -> Value {
    json!({"key": key, "operator": "DoesNotExist"})
}

#[expect(clippy::needless_pass_by_value, reason = "they are written where they are used")]
fn webhook(kind: &str, revision: &str, namespaces: Value, objects: Value) -> Value {
    json!({
        "name": format!("{kind}.sidecar-injector.lateen.dev"),
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 10,
        "reinvocationPolicy": "Never",
        "clientConfig": {"service": {"name": name(revision), "namespace": NAMESPACE, "path": "/inject", "port": 443}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}],
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": objects},
    })
}

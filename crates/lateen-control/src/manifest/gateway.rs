//! The gateway at the edge of the mesh: a Deployment whose pods the injector makes gateways of, and the Service in front of it.

use serde_json::{Value, json};

use super::{DEFAULT_REVISION, REVISION_LABEL, Values, metadata};

const NAME: &str = "istio-ingressgateway";

pub(super) fn objects(values: &Values) -> Vec<Value> {
    let selector = json!({"app": NAME, "istio": "ingressgateway"});
    let mut labels = selector.clone();
    labels["sidecar.istio.io/inject"] = json!("true");
    if values.revision != DEFAULT_REVISION {
        labels[REVISION_LABEL] = json!(values.revision);
    }
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(NAME)}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": labelled(&selector),
            "spec": {"type": values.ingress_gateway.service_type, "selector": selector,
                "ports": [port("status-port", 15021), port("http2", 80), port("https", 443)]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": labelled(&selector),
        "spec": {
            "replicas": values.ingress_gateway.replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels, "annotations": {"inject.istio.io/templates": "gateway"}},
                "spec": {
                    "serviceAccountName": NAME,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 1337, "runAsGroup": 1337,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                    "containers": [{"name": "istio-proxy", "image": "auto",
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}],
                },
            },
        }}),
    ]
}

/// Istio's Gateways choose by these labels of pods; Services and Deployments have them, too.
fn labelled(labels: &Value) -> Value {
    let mut metadata = metadata(NAME);
    metadata["labels"] = labels.clone();
    metadata
}

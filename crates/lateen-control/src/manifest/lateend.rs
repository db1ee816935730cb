//! The control plane itself: its Deployment and Service, its configuration, and what keeps it up and out of reach.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{DEFAULT_REVISION, NAMESPACE, REVISION_LABEL, Values, mesh_config_map, metadata, name};

/// As its pods and its Service have it.
const APP: &str = "lateend";
/// Where the mesh config is in its container.
const CONFIG_FOLDER: &str = "/etc/lateen/config";
const CONFIG_KEY: &str = "mesh";
const STATE: &str = "/var/lib/lateen";
const USER: u32 = 1337;
const XDS: u16 = 15012;
const MONITORING: u16 = 15014;
const WEBHOOK: u16 = 15017;

pub(super) fn objects(values: &Values) -> Vec<Value> {
    let mut objects = vec![mesh_config(values), service(values), deployment(values)];
    if values.pod_disruption_budget.enabled {
        objects.push(budget(values));
    }
    if values.autoscaling.enabled {
        objects.push(autoscaler(values));
    }
    if values.network_policy.enabled {
        objects.push(network_policy(values));
    }
    objects
}

/// The labels of its pods.
fn selector(values: &Values) -> Value {
    json!({"app": APP, REVISION_LABEL: values.revision})
}

fn mesh_config(values: &Values) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&mesh_config_map(&values.revision)),
        "data": {CONFIG_KEY: values.mesh_config_text()}})
}

fn service(values: &Values) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(&name(&values.revision)),
    "spec": {"selector": selector(values), "ports": [
        {"name": "grpc-xds", "port": XDS, "protocol": "TCP"},
        {"name": "http-monitoring", "port": MONITORING, "protocol": "TCP"},
        {"name": "https-webhook", "port": 443, "targetPort": WEBHOOK, "protocol": "TCP"},
    ]}})
}

fn arguments(values: &Values) -> Vec<String> {
    let mut arguments = vec!["--kubernetes".to_owned()];
    let mut option = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
    option("listen", "0.0.0.0");
    option("state-dir", STATE);
    option("mesh-config", &format!("{CONFIG_FOLDER}/{CONFIG_KEY}"));
    option("proxy-image", &values.image("proxy"));
    option("init-image", &values.image("init"));
    option("log-level", &values.log_level);
    if values.revision != DEFAULT_REVISION {
        option("revision", &values.revision);
        option("discovery-address", &format!("{}.{NAMESPACE}.svc:{XDS}", name(&values.revision)));
    }
    if !values.image_pull_policy.is_empty() {
        option("image-pull-policy", &values.image_pull_policy);
    }
    for secret in &values.image_pull_secrets {
        option("image-pull-secret", secret);
    }
    if values.log_as_json {
        arguments.push("--log-json".to_owned());
    }
    arguments
}

fn deployment(values: &Values) -> Value {
    let name = name(&values.revision);
    let mut labels = selector(values);
    labels["sidecar.istio.io/inject"] = json!("false");
    let mut spec = json!({
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
        "selector": {"matchLabels": selector(values)},
        "template": {
            // Other configuration makes other pods: it is read when they start.
            "metadata": {"labels": labels, "annotations": {"lateen.dev/config": digest(&values.mesh_config_text())}},
            "spec": pod(values, &name),
        },
    });
    if !values.autoscaling.enabled {
        spec["replicas"] = json!(values.replicas);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(&name), "spec": spec})
}

fn pod(values: &Values, account: &str) -> Value {
    let mut spec = json!({
        "serviceAccountName": account,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // Replicas on one node go down with it.
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": selector(values)}}],
        "containers": [container(values)],
        "volumes": [
            {"name": "state", "emptyDir": {}},
            {"name": "config", "configMap": {"name": mesh_config_map(&values.revision)}},
        ],
    });
    let secrets: Vec<Value> = values.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    for (field, value) in [
        ("imagePullSecrets", json!(secrets)),
        ("nodeSelector", json!(values.node_selector)),
        ("tolerations", json!(values.tolerations)),
        ("priorityClassName", json!(values.priority_class_name)),
    ] {
        let is_empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value == "";
        if !is_empty {
            spec[field] = value;
        }
    }
    spec
}

fn container(values: &Values) -> Value {
    let mut container = json!({
        "name": "lateend",
        "image": values.image("lateend"),
        "args": arguments(values),
        "ports": [
            {"name": "grpc-xds", "containerPort": XDS, "protocol": "TCP"},
            {"name": "http-monitoring", "containerPort": MONITORING, "protocol": "TCP"},
            {"name": "https-webhook", "containerPort": WEBHOOK, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "https-webhook", "scheme": "HTTPS"}, "periodSeconds": 3},
        "resources": {"requests": values.resources.requests},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "state", "mountPath": STATE},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": true},
        ],
    });
    if !values.resources.limits.is_empty() {
        container["resources"]["limits"] = json!(values.resources.limits);
    }
    if !values.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(values.image_pull_policy);
    }
    container
}

fn digest(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().take(8).fold(String::new(), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Nodes are emptied one at a time.
fn budget(values: &Values) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(&name(&values.revision)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(values)}}})
}

fn autoscaler(values: &Values) -> Value {
    let name = name(&values.revision);
    let scaling = &values.autoscaling;
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata(&name),
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": scaling.min, "maxReplicas": scaling.max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": scaling.cpu}}}],
    }})
}

/// Its ports are for everybody, an API server on a node among them; whatever else it listens on is for nobody.
fn network_policy(values: &Values) -> Value {
    let ports: Vec<Value> =
        [XDS, MONITORING, WEBHOOK].iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(&name(&values.revision)),
        "spec": {"podSelector": {"matchLabels": selector(values)}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]}})
}

//! Probes and hooks that a kubelet asks over the network are asked of the proxy instead, which asks the app: the kubelet has no
//! certificate, and what it sends would be redirected (Istio: "health checking of Istio services").

use serde_json::{Map, Value, json};

use super::PROXY_CONTAINER;

/// What the proxy asks on behalf of whom: a JSON object by path (Istio's name).
const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];

/// Rewrites those of all containers that run beside the proxy, and tells the proxy.
pub(super) fn rewrite(pod: &mut Value, status_port: Option<u16>) {
    let Some(port) = status_port else { return };
    let mut asked = Map::new();
    for (list, is_init) in [("containers", false), ("initContainers", true)] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let runs_on = !is_init || container["restartPolicy"] == "Always";
            if runs_on && container["name"] != PROXY_CONTAINER {
                rewrite_container(container, port, &mut asked);
            }
        }
    }
    if asked.is_empty() {
        return;
    }
    let text = Value::Object(asked).to_string();
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        let proxy = containers.into_iter().flatten().find(|container| container["name"] == PROXY_CONTAINER);
        if let Some(proxy) = proxy {
            super::merge::merge_container(proxy, &json!({"env": [{"name": PROBERS, "value": text}]}));
        }
    }
}

fn rewrite_container(container: &mut Value, port: u16, asked: &mut Map<String, Value>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (field, path) in PROBES {
        let Some(probe) = container.get_mut(field).filter(|probe| probe.is_object()) else { continue };
        let path = format!("/app-health/{name}/{path}");
        if let Some(mut question) = question(probe, &ports) {
            question
                .insert("timeoutSeconds".to_owned(), probe.get("timeoutSeconds").cloned().unwrap_or_else(|| json!(1)));
            ask_instead(probe, &path, port);
            asked.insert(path, Value::Object(question));
        }
    }
    for (field, path) in HOOKS {
        let lifecycle = container.get_mut("lifecycle").and_then(Value::as_object_mut);
        let Some(hook) = lifecycle.and_then(|hooks| hooks.get_mut(field)).filter(|it| it.is_object()) else { continue };
        let path = format!("/app-lifecycle/{name}/{path}");
        if let Some(question) = question(hook, &ports) {
            ask_instead(hook, &path, port);
            asked.insert(path, Value::Object(question));
        }
    }
}

/// What is asked over the network, its port as a number. None for what is run in the container, for what is asked of another
/// host, and where the port has no number: a kubelet says what is wrong with that.
fn question(probe: &Value, ports: &Value) -> Option<Map<String, Value>> {
    let sort = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|sort| probe[*sort].is_object())?;
    let mut action = probe[sort].clone();
    if action["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    if let Some(name) = action["port"].as_str() {
        let named = || ports.as_array()?.iter().find(|port| port["name"] == name)?["containerPort"].as_u64();
        action["port"] = json!(name.parse::<u64>().ok().or_else(named)?);
    }
    Some(Map::from_iter([(sort.to_owned(), action)]))
}

fn ask_instead(probe: &mut Value, path: &str, port: u16) {
    if let Some(fields) = probe.as_object_mut() {
        for sort in ["httpGet", "tcpSocket", "grpc"] {
            fields.shift_remove(sort);
        }
        fields.insert("httpGet".to_owned(), json!({"path": path, "port": port, "scheme": "HTTP"}));
    }
}

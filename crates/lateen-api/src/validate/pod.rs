//! Rules for pods and for the templates of Deployments, and what of them cannot be had on one machine.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::Check;
use super::{metadata, names, proxy_annotation};
use crate::kubernetes::container::{Container, EnvVar};
use crate::kubernetes::probe::{Lifecycle, LifecycleHandler, Probe};
use crate::kubernetes::volume::Volume;
use crate::kubernetes::{Deployment, PodSpec};

pub(super) fn check_deployment(check: &mut Check<'_>, spec: &Deployment) {
    if spec.selector.match_labels.is_empty() && spec.selector.match_expressions.is_empty() {
        check.error("spec.selector", "`selector` is required and missing");
    } else if !spec.selector.matches(&spec.template.metadata.labels) {
        check.error("spec.selector", "the selector does not select the template's own labels");
    }
    metadata::labels(check, "spec.template.metadata.labels", &spec.template.metadata.labels);
    let annotations = &spec.template.metadata.annotations;
    proxy_annotation::check(check, "spec.template.metadata.annotations", annotations);
    if !matches!(spec.template.spec.restart_policy.as_deref(), None | Some("Always")) {
        let message = "the pods of a Deployment are always restarted";
        check.error("spec.template.spec.restartPolicy", message);
    }
    self::check(check, "spec.template.spec", &spec.template.spec);
}

pub(super) fn check(check: &mut Check<'_>, field: &str, pod: &PodSpec) {
    if pod.containers.is_empty() {
        check.error(format!("{field}.containers"), "a pod needs at least one container");
    }
    if let Some(policy) = pod.restart_policy.as_deref()
        && !matches!(policy, "Always" | "OnFailure" | "Never")
    {
        let message = format!("`{policy}` is none of Always, OnFailure and Never");
        check.error(format!("{field}.restartPolicy"), message);
    }
    let mut volumes = BTreeSet::new();
    for (index, volume) in pod.volumes.iter().enumerate() {
        let place = format!("{field}.volumes[{index}]");
        if !volumes.insert(volume.name.as_str()) {
            check.error(format!("{place}.name"), format!("the volume `{}` is there a second time", volume.name));
        }
        check_volume(check, &place, volume);
    }
    let mut seen = BTreeSet::new();
    for (list, containers) in [("initContainers", &pod.init_containers), ("containers", &pod.containers)] {
        for (index, container) in containers.iter().enumerate() {
            let place = format!("{field}.{list}[{index}]");
            check_container(check, &place, container, &volumes);
            if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
                let message = format!("the container `{}` is there a second time", container.name);
                check.error(format!("{place}.name"), message);
            }
        }
    }
    if check.is_local() && pod.host_network {
        let help = "publish a port of the pod instead";
        check.not_here(format!("{field}.hostNetwork"), "`hostNetwork` is not supported on this machine", help);
    }
}

fn check_container(check: &mut Check<'_>, field: &str, container: &Container, volumes: &BTreeSet<&str>) {
    match container.name.as_str() {
        "" => check.error(format!("{field}.name"), "`name` is required and missing"),
        name if !names::is_lower_label(name) => {
            check.error(format!("{field}.name"), format!("`{name}` is not a name for a container"));
        }
        _ => {}
    }
    if container.image.is_empty() {
        check.error(format!("{field}.image"), "`image` is required and missing");
    }
    let mut ports = BTreeSet::new();
    for (index, port) in container.ports.iter().enumerate() {
        let place = format!("{field}.ports[{index}]");
        check.rule(format!("{place}.containerPort"), names::port(u32::from(port.container_port)));
        if !port.name.is_empty() && !ports.insert(port.name.as_str()) {
            check.error(format!("{place}.name"), format!("the port name `{}` is there a second time", port.name));
        }
    }
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let place = format!("{field}.volumeMounts[{index}]");
        if !volumes.contains(mount.name.as_str()) {
            check.error(format!("{place}.name"), format!("the pod has no volume `{}`", mount.name));
        }
        if mount.mount_path.is_empty() {
            check.error(format!("{place}.mountPath"), "`mountPath` is required and missing");
        }
    }
    for (index, variable) in container.env.iter().enumerate() {
        check_variable(check, &format!("{field}.env[{index}]"), variable);
    }
    for (index, source) in container.env_from.iter().enumerate() {
        let place = format!("{field}.envFrom[{index}]");
        not_stored(check, &place, "configMapRef", source.config_map_ref.as_ref());
        not_stored(check, &place, "secretRef", source.secret_ref.as_ref());
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            check_probe(check, &format!("{field}.{name}"), probe);
        }
    }
    if let Some(lifecycle) = &container.lifecycle {
        check_lifecycle(check, &format!("{field}.lifecycle"), lifecycle);
    }
}

fn check_variable(check: &mut Check<'_>, field: &str, variable: &EnvVar) {
    if variable.name.is_empty() {
        check.error(format!("{field}.name"), "`name` is required and missing");
    }
    let Some(source) = &variable.value_from else { return };
    if variable.value.as_ref().is_some_and(|value| !value.is_empty()) {
        check.error(format!("{field}.valueFrom"), "only one of `value` and `valueFrom` may be set");
    }
    let place = format!("{field}.valueFrom");
    not_stored(check, &place, "configMapKeyRef", source.config_map_key_ref.as_ref());
    not_stored(check, &place, "secretKeyRef", source.secret_key_ref.as_ref());
}

/// A reference to a ConfigMap or a Secret, unless the container can do without it.
fn not_stored(check: &mut Check<'_>, field: &str, word: &str, reference: Option<&Value>) {
    let needed = reference.is_some_and(|reference| reference["optional"] != Value::Bool(true));
    if needed && check.is_local() {
        let kind = if word.starts_with("secret") { "Secrets" } else { "ConfigMaps" };
        let message = format!("{kind} are not supported on this machine");
        check.not_here(format!("{field}.{word}"), message, "write the value into the manifest");
    }
}

/// The ConfigMap that there is everywhere: the mesh's root certificate.
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";

/// What a volume may come from here is what the pod itself brings.
fn check_volume(check: &mut Check<'_>, field: &str, volume: &Volume) {
    let sources = [
        ("emptyDir", volume.empty_dir.is_some(), true),
        ("projected", volume.projected.is_some(), true),
        ("downwardAPI", volume.downward_api.is_some(), true),
        (
            "configMap",
            volume.config_map.is_some(),
            volume.config_map.as_ref().is_some_and(|source| source.optional || source.name == ROOT_CONFIG_MAP),
        ),
        ("secret", volume.secret.is_some(), volume.secret.as_ref().is_some_and(|source| source.optional)),
        ("hostPath", volume.host_path.is_some(), false),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some(), false),
        ("csi", volume.csi.is_some(), false),
        ("nfs", volume.nfs.is_some(), false),
        ("ephemeral", volume.ephemeral.is_some(), false),
    ];
    let chosen: Vec<_> = sources.iter().filter(|(_, set, _)| *set).collect();
    if let [_, (name, ..), ..] = chosen.as_slice() {
        check.error(format!("{field}.{name}"), "a volume has one source only");
    }
    for (name, ..) in chosen.iter().filter(|(.., works_here)| !works_here) {
        if check.is_local() {
            let message = format!("volumes of type {name} are not supported on this machine");
            check.not_here(format!("{field}.{name}"), message, "use emptyDir, projected or downwardAPI");
        }
    }
}

fn check_probe(check: &mut Check<'_>, field: &str, probe: &Probe) {
    let ways = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    if ways.iter().filter(|set| **set).count() != 1 {
        check.error(field, "a probe needs exactly one of httpGet, tcpSocket, exec and grpc");
    }
}

fn check_lifecycle(check: &mut Check<'_>, field: &str, lifecycle: &Lifecycle) {
    let handlers = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (name, handler) in handlers {
        let Some(LifecycleHandler { exec, http_get, tcp_socket, sleep }) = handler else { continue };
        let ways = [exec.is_some(), http_get.is_some(), tcp_socket.is_some(), sleep.is_some()];
        if ways.iter().filter(|set| **set).count() != 1 {
            check.error(format!("{field}.{name}"), "a handler needs exactly one of exec, httpGet, tcpSocket and sleep");
        }
    }
}

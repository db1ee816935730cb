//! The containers that are added.

use lateen_api::kubernetes::Pod;
use lateen_api::kubernetes::container::{
    Capabilities, Container, ContainerPort, EnvSource, EnvVar, FieldRef, ResourceRequirements, SecurityContext,
    VolumeMount,
};
use lateen_api::{Diagnostic, Resource};
use serde_json::json;

use super::{
    INIT_CONTAINER, PROXY_CONTAINER, ROOT_VOLUME, Running, Settings, TOKEN_VOLUME, Template, own_proxy, problem,
    workload_name,
};

const PROXY_USER: u32 = 1337;
/// A volume of the pod's own (Istio's name): in it is the socket of whoever gives the workload's identity, such as a SPIRE agent;
/// or, where nobody does, our proxy gives it there, to the containers that have the volume, too.
const SOCKET_VOLUME: &str = "workload-socket";
/// An image by which a pod says that the template's is meant.
const AUTO: &str = "auto";
const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
const CPU: &str = "sidecar.istio.io/proxyCPU";
const MEMORY: &str = "sidecar.istio.io/proxyMemory";
const CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
const MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";

/// The container that redirects the pod's traffic, and ends.
pub(super) fn init(arguments: Vec<String>, settings: &Settings) -> Container {
    Container {
        name: INIT_CONTAINER.to_owned(),
        image: settings.init_image.clone(),
        args: arguments,
        security_context: Some(Box::new(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            capabilities: Some(Capabilities {
                add: vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()],
                drop: vec!["ALL".to_owned()],
            }),
            ..SecurityContext::default()
        })),
        resources: Some(Box::new(default_resources())),
        ..Container::default()
    }
}

/// The proxy, with what the pod itself says of a container of that name laid over it.
pub(super) fn proxy(
    pod: &Resource<Pod>,
    template: Template,
    running: &Running,
    settings: &Settings,
) -> Result<Container, Vec<Diagnostic>> {
    let role = match template {
        Template::Sidecar => "sidecar",
        Template::Gateway => "router",
    };
    let mut args = vec![role.to_owned()];
    if let Some(level) = pod.metadata.annotation(LOG_LEVEL) {
        args.extend(["--log-level".to_owned(), log_level(pod, level)?]);
    }
    if let Some(threads) = running.concurrency {
        args.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    let mut volume_mounts =
        vec![mount(TOKEN_VOLUME, "/var/run/secrets/tokens"), mount(ROOT_VOLUME, "/var/run/secrets/istio")];
    if pod.spec.spec.volumes.iter().any(|volume| volume.name == SOCKET_VOLUME) {
        let folder = mount(SOCKET_VOLUME, "/var/run/secrets/workload-spiffe-uds");
        volume_mounts.push(VolumeMount { read_only: false, ..folder });
    }
    let image = pod.metadata.annotation(PROXY_IMAGE).unwrap_or(&settings.proxy_image);
    let container = Container {
        name: PROXY_CONTAINER.to_owned(),
        image: image.to_owned(),
        args,
        env: environment(pod, running, settings),
        ports: vec![ContainerPort {
            container_port: 15090,
            name: "http-envoy-prom".to_owned(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }],
        volume_mounts,
        security_context: Some(Box::new(SecurityContext {
            run_as_user: Some(PROXY_USER),
            run_as_group: Some(PROXY_USER),
            run_as_non_root: Some(true),
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { add: Vec::new(), drop: vec!["ALL".to_owned()] }),
            ..SecurityContext::default()
        })),
        resources: Some(Box::new(resources(pod)?)),
        ..Container::default()
    };
    Ok(match own_proxy(pod) {
        Some(own) => overlay(container, own),
        None => container,
    })
}

/// The levels that Istio takes, by the name that ours has.
fn log_level(pod: &Resource<Pod>, level: &str) -> Result<String, Vec<Diagnostic>> {
    Ok(match level {
        "trace" | "debug" | "info" | "error" | "off" => level,
        "warning" | "warn" => "warn",
        "critical" => "error",
        _ => {
            let message = format!("`{level}` is not a log level (trace, debug, info, warning, error, critical, off)");
            return Err(vec![problem(pod, LOG_LEVEL, message)]);
        }
    }
    .to_owned())
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), read_only: true, ..VolumeMount::default() }
}

fn environment(pod: &Resource<Pod>, running: &Running, settings: &Settings) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(Box::new(EnvSource {
            field_ref: Some(FieldRef { api_version: String::new(), field_path: path.to_owned() }),
            ..EnvSource::default()
        })),
    };
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let apps = pod.spec.spec.containers.iter().filter(|container| container.name != PROXY_CONTAINER);
    let apps: Vec<&str> = apps.map(|container| container.name.as_str()).collect();
    let mut out = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("PILOT_DISCOVERY", settings.discovery_address.clone()),
        value("CA_ADDR", settings.discovery_address.clone()),
        value("TRUST_DOMAIN", settings.trust_domain.clone()),
        value("ISTIO_META_CLUSTER_ID", settings.cluster_id.clone()),
        value("ISTIO_META_MESH_ID", settings.trust_domain.clone()),
        value("ISTIO_META_WORKLOAD_NAME", workload_name(pod)),
        value("ISTIO_META_APP_CONTAINERS", apps.join(",")),
        value("LATEEN_LABELS", json!(pod.metadata.labels).to_string()),
    ];
    out.extend(super::scraping::told(pod, settings).map(|told| value("ISTIO_PROMETHEUS_ANNOTATIONS", told)));
    out.extend(settings.socket_mark.map(|mark| value("LATEEN_SOCKET_MARK", mark.to_string())));
    out.retain(|variable| !running.environment.contains_key(&variable.name));
    out.extend(running.environment.iter().map(|(name, text)| value(name, text.clone())));
    out
}

/// Any annotation about resources replaces all defaults (Istio's template does so).
fn resources(pod: &Resource<Pod>) -> Result<ResourceRequirements, Vec<Diagnostic>> {
    let mut own = ResourceRequirements::default();
    let mut problems = Vec::new();
    for (annotation, name, is_limit) in
        [(CPU, "cpu", false), (MEMORY, "memory", false), (CPU_LIMIT, "cpu", true), (MEMORY_LIMIT, "memory", true)]
    {
        let Some(text) = pod.metadata.annotation(annotation) else { continue };
        match serde_json::from_value(json!(text)) {
            Ok(quantity) => {
                let amounts = if is_limit { &mut own.limits } else { &mut own.requests };
                amounts.insert(name.to_owned(), quantity);
            }
            Err(error) => problems.push(problem(pod, annotation, error.to_string())),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if own == ResourceRequirements::default() { default_resources() } else { own })
}

fn default_resources() -> ResourceRequirements {
    let amounts = json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
    serde_json::from_value(amounts).expect("these amounts are quantities")
}

/// What the pod says wins; lists are joined by name.
fn overlay(mut template: Container, own: &Container) -> Container {
    let Container { env, ports, volume_mounts, image, args, resources, security_context, .. } = own;
    let mut out = own.clone();
    if image.is_empty() || image == AUTO {
        out.image = std::mem::take(&mut template.image);
    }
    if args.is_empty() {
        out.args = std::mem::take(&mut template.args);
    }
    template.env.retain(|variable| !env.iter().any(|own| own.name == variable.name));
    out.env.splice(0..0, template.env);
    template.ports.retain(|port| !ports.iter().any(|own| own.container_port == port.container_port));
    out.ports.extend(template.ports);
    template.volume_mounts.retain(|mount| !volume_mounts.iter().any(|own| own.mount_path == mount.mount_path));
    out.volume_mounts.extend(template.volume_mounts);
    out.resources = resources.clone().or(template.resources);
    out.security_context = security_context.clone().or(template.security_context);
    out
}

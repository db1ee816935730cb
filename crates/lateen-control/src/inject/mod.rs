//! The injector: puts a proxy next to a pod's containers, by Istio's rules for who gets one.
//!
//! Pure: a pod as JSON, its namespace's labels, the ProxyConfigs and the settings give the injected pod or what is wrong with
//! it. JSON, because whatever is not ours to change stays as it is, fields that nobody here has heard of among it.

pub mod config;
mod merge;
mod policy;
mod probes;
mod proxy;
mod redirection;
mod running;
mod scraping;
mod subject;
mod template;
mod traffic;
mod volumes;
pub mod workloads;

use std::collections::BTreeMap;

use lateen_api::networking::ProxyConfig;
use lateen_api::{Diagnostic, Resource};
use serde_json::{Value, json};

pub use config::InjectorConfig;
pub use policy::{NotInjected, Verdict};
pub use subject::{Maker, Place, Subject};

/// The containers' names (Istio's; users' tools know them).
pub const PROXY_CONTAINER: &str = "istio-proxy";
pub const INIT_CONTAINER: &str = "istio-init";
/// What has been injected, JSON.
const STATUS: &str = "sidecar.istio.io/status";
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";
/// Of this control plane, on what it has injected.
const REVISION: &str = "istio.io/rev";

/// How a proxy stands in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SidecarForm {
    /// An init container that goes on running (`restartPolicy: Always`): up before the pod's other containers, gone after them.
    Native,
    /// A container beside the others.
    Classic,
}

/// What is the same for all pods.
#[derive(Debug, Clone)]
pub struct Settings {
    pub proxy_image: String,
    pub init_image: String,
    /// `imagePullPolicy` of both; left out where the cluster's own default is meant.
    pub image_pull_policy: Option<String>,
    /// Secrets that pods need to pull them.
    pub image_pull_secrets: Vec<String>,
    /// Of this control plane: pods that ask for another revision are not ours.
    pub revision: String,
    /// `host:port` of the control plane, as pods reach it.
    pub discovery_address: String,
    pub cluster_id: String,
    pub trust_domain: String,
    /// Whose ProxyConfig holds for the whole mesh.
    pub root_namespace: String,
    /// Mark on the proxy's sockets by which redirection knows them; none where its user id is enough.
    pub socket_mark: Option<u32>,
    /// Proxies give the application's metrics together with their own, unless a pod says otherwise (Istio:
    /// `enablePrometheusMerge`).
    pub merges_metrics: bool,
    /// Unless a pod says otherwise (`sidecar.istio.io/nativeSidecar`).
    pub form: SidecarForm,
    /// Whether probes of the app are asked by way of the proxy, unless a pod says otherwise
    /// (`sidecar.istio.io/rewriteAppHTTPProbers`).
    pub rewrite_probes: bool,
    /// Whether a kubelet runs the pods, so that the proxy needs probes and hooks. On one machine its runner asks the proxy by
    /// itself, and sooner.
    pub has_kubelet: bool,
    pub config: InjectorConfig,
}

impl Default for Settings {
    /// Of a mesh on one machine.
    fn default() -> Self {
        Self {
            proxy_image: concat!("lateen/proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            init_image: concat!("lateen/init:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            revision: "default".to_owned(),
            discovery_address: "lateend.istio-system.svc:15012".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            socket_mark: Some(1337),
            merges_metrics: true,
            form: SidecarForm::Classic,
            rewrite_probes: false,
            has_kubelet: false,
            config: InjectorConfig::default(),
        }
    }
}

impl Settings {
    /// Of a cluster, where a kubelet runs the pods.
    pub fn on_kubernetes() -> Self {
        Self {
            socket_mark: None,
            form: SidecarForm::Native,
            rewrite_probes: true,
            has_kubelet: true,
            ..Self::default()
        }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    pub pod: Value,
    /// Why the pod is as it was; none when it got a proxy.
    pub refused: Option<NotInjected>,
    /// What it asks for and does not get, where nothing depends on it.
    pub warnings: Vec<Diagnostic>,
}

/// Injects a pod, if it is one to be injected. Injecting what has been injected changes nothing.
///
/// # Errors
/// Annotations that cannot be honoured; such a pod is not let in half-configured.
pub fn inject(
    subject: &Subject<'_>,
    namespace_labels: &BTreeMap<String, String>,
    configs: &[&Resource<ProxyConfig>],
    settings: &Settings,
) -> Result<Injected, Vec<Diagnostic>> {
    let left = |refused| Injected { pod: subject.pod.clone(), refused: Some(refused), warnings: Vec::new() };
    if let Verdict::Leave(refused) = policy::verdict(subject, namespace_labels, settings) {
        return Ok(left(refused));
    }
    if subject.annotation(STATUS).is_some() && subject.container(PROXY_CONTAINER).is_some() {
        return Ok(left(NotInjected::Already));
    }
    let templates = template::chosen(subject, &settings.config)?;
    let running = Running::of(subject, configs, settings)?;
    let mut pod = subject.pod.clone();
    // What the pod itself says of a container of ours is laid over what templates say of it.
    let own: Vec<Value> = [PROXY_CONTAINER, INIT_CONTAINER].iter().filter_map(|name| take(&mut pod, name)).collect();
    let mut added = Added::default();
    for template in &templates {
        let part = template.part(subject, &running, settings)?;
        added.note(&part);
        merge::merge(&mut pod, &part);
    }
    for container in &own {
        overlay(&mut pod, container, subject)?;
    }
    if running.rewrites_probes() {
        probes::rewrite(&mut pod, running.status_port);
    }
    order(&mut pod, running.holds_application);
    annotate(&mut pod, &added, settings);
    scraping::redirect(&mut pod, subject, &running, settings);
    Ok(Injected { pod, refused: None, warnings: subject.ignored() })
}

use running::Running;

/// What templates have added, for the status.
#[derive(Default)]
struct Added {
    init_containers: Vec<String>,
    containers: Vec<String>,
    volumes: Vec<String>,
    image_pull_secrets: Vec<String>,
}

impl Added {
    fn note(&mut self, part: &Value) {
        let spec = &part["spec"];
        for (list, field) in [
            (&mut self.init_containers, "initContainers"),
            (&mut self.containers, "containers"),
            (&mut self.volumes, "volumes"),
            (&mut self.image_pull_secrets, "imagePullSecrets"),
        ] {
            for name in spec[field].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()) {
                if !list.iter().any(|known| known == name) {
                    list.push(name.to_owned());
                }
            }
        }
    }

    fn status(&self, revision: &str) -> String {
        let list = |names: &Vec<String>| if names.is_empty() { Value::Null } else { json!(names) };
        json!({
            "initContainers": list(&self.init_containers),
            "containers": list(&self.containers),
            "volumes": list(&self.volumes),
            "imagePullSecrets": list(&self.image_pull_secrets),
            "revision": revision,
        })
        .to_string()
    }
}

/// Takes a container out of the pod.
fn take(pod: &mut Value, name: &str) -> Option<Value> {
    for field in ["containers", "initContainers"] {
        let Some(list) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        if let Some(at) = list.iter().position(|container| container["name"] == name) {
            return Some(list.remove(at));
        }
    }
    None
}

/// An image by which a pod says that the template's is meant.
const AUTO: &str = "auto";

/// Lays what the pod says of a container over the template's; where no template has such a container, it goes back.
fn overlay(pod: &mut Value, own: &Value, subject: &Subject<'_>) -> Result<(), Vec<Diagnostic>> {
    let name = own["name"].as_str().unwrap_or_default();
    let mut own = own.clone();
    let is_auto = own["image"].as_str().is_none_or(|image| image.is_empty() || image == AUTO);
    if is_auto && let Some(fields) = own.as_object_mut() {
        fields.shift_remove("image");
    }
    for field in ["containers", "initContainers"] {
        let list = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        if let Some(container) = list.into_iter().flatten().find(|container| container["name"] == name) {
            merge::merge_container(container, &own);
            return Ok(());
        }
    }
    if is_auto {
        let message = format!("container {name} leaves its image to a template, and none of those asked for has one");
        return Err(vec![subject.problem("spec.containers", message)]);
    }
    let list = pod["spec"].as_object_mut().map(|spec| spec.entry("containers").or_insert_with(|| json!([])));
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.push(own);
    }
    Ok(())
}

/// Who starts when (Istio's order). A native proxy comes first, after the redirection, so that the pod's own init containers are
/// in the mesh; else redirection comes last, after those have reached the network. A proxy beside the others is first if they
/// are to wait for it.
fn order(pod: &mut Value, holds_application: bool) {
    let spec = &mut pod["spec"];
    let is_native = names(&spec["initContainers"]).any(|name| name == PROXY_CONTAINER);
    if let Some(containers) = spec.get_mut("containers").and_then(Value::as_array_mut) {
        move_to(containers, PROXY_CONTAINER, holds_application);
    }
    if let Some(containers) = spec.get_mut("initContainers").and_then(Value::as_array_mut) {
        if is_native {
            move_to(containers, PROXY_CONTAINER, true);
        }
        move_to(containers, INIT_CONTAINER, is_native);
    }
}

fn names(containers: &Value) -> impl Iterator<Item = &str> {
    containers.as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

fn move_to(containers: &mut Vec<Value>, name: &str, front: bool) {
    if let Some(at) = containers.iter().position(|container| container["name"] == name) {
        let container = containers.remove(at);
        let to = if front { 0 } else { containers.len() };
        containers.insert(to, container);
    }
}

fn annotate(pod: &mut Value, added: &Added, settings: &Settings) {
    let first = names(&pod["spec"]["containers"]).find(|name| *name != PROXY_CONTAINER).map(str::to_owned);
    let configured = settings.config.injected_annotations.clone();
    let Some(annotations) = fields_of(&mut pod["metadata"], "annotations") else { return };
    annotations.insert(STATUS.to_owned(), json!(added.status(&settings.revision)));
    annotations.insert(REVISION.to_owned(), json!(settings.revision));
    for (key, value) in configured {
        annotations.entry(key).or_insert_with(|| json!(value));
    }
    for key in [DEFAULT_CONTAINER, DEFAULT_LOGS_CONTAINER] {
        if let Some(name) = &first {
            annotations.entry(key).or_insert_with(|| json!(name));
        }
    }
}

/// The mapping at a field, made if it is not there.
fn fields_of<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    if value.is_null() {
        *value = json!({});
    }
    let inside = value.as_object_mut()?.entry(field).or_insert_with(|| json!({}));
    if inside.is_null() {
        *inside = json!({});
    }
    inside.as_object_mut()
}

#[cfg(test)]
mod tests;

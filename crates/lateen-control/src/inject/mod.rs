//! The injector: puts a proxy next to a pod's containers, by Istio's rules for who gets one.
//!
//! Pure: a pod, its namespace's labels, the ProxyConfigs and the settings give the injected pod or what is wrong with it.

mod containers;
mod policy;
mod running;
mod scraping;
mod traffic;

use std::collections::BTreeMap;

use lateen_api::diagnostic::code;
use lateen_api::kubernetes::Pod;
use lateen_api::kubernetes::container::Container;
use lateen_api::kubernetes::volume::{ObjectVolume, Volume};
use lateen_api::networking::ProxyConfig;
use lateen_api::{Diagnostic, Resource, Severity};
use serde_json::json;

pub use policy::{NotInjected, Verdict, verdict};
use running::Running;

/// The containers' names (Istio's; users' tools know them).
pub const PROXY_CONTAINER: &str = "istio-proxy";
pub const INIT_CONTAINER: &str = "istio-init";
/// What has been injected, JSON.
const STATUS: &str = "sidecar.istio.io/status";
const TEMPLATES: &str = "inject.istio.io/templates";
const TLS_MODE: &str = "security.istio.io/tlsMode";
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";
const TOKEN_VOLUME: &str = "istio-token";
const ROOT_VOLUME: &str = "istiod-ca-cert";
/// A label's value is never longer.
const MAX_LABEL: usize = 63;

/// What is the same for all pods.
#[derive(Debug, Clone)]
pub struct Settings {
    pub proxy_image: String,
    pub init_image: String,
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_image: concat!("lateen/proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            init_image: concat!("lateen/init:", env!("CARGO_PKG_VERSION")).to_owned(),
            revision: "default".to_owned(),
            discovery_address: "lateend.istio-system.svc:15012".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            socket_mark: Some(1337),
            merges_metrics: true,
        }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    pub pod: Resource<Pod>,
    /// Why the pod is as it was; none when it got a proxy.
    pub refused: Option<NotInjected>,
}

/// What a template makes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    Sidecar,
    /// The proxy is the workload: nothing is redirected to it.
    Gateway,
}

/// Injects a pod, if it is one to be injected. Injecting what has been injected changes nothing.
///
/// # Errors
/// Annotations that cannot be honoured; such a pod is not let in half-configured.
pub fn inject(
    pod: &Resource<Pod>,
    namespace_labels: &BTreeMap<String, String>,
    configs: &[&Resource<ProxyConfig>],
    settings: &Settings,
) -> Result<Injected, Vec<Diagnostic>> {
    if let Verdict::Leave(refused) = verdict(pod, namespace_labels, &settings.revision) {
        return Ok(Injected { pod: pod.clone(), refused: Some(refused) });
    }
    if pod.metadata.annotations.contains_key(STATUS) && own_proxy(pod).is_some() {
        return Ok(Injected { pod: pod.clone(), refused: Some(NotInjected::Already) });
    }
    let template = template(pod)?;
    let redirection = match template {
        Template::Sidecar => traffic::arguments(pod)?,
        Template::Gateway => None,
    };
    let mut out = pod.clone();
    label(&mut out, template);
    let running = Running::of(&out, configs, &settings.root_namespace)?;
    let proxy = containers::proxy(&out, template, &running, settings)?;
    let init = redirection.map(|arguments| containers::init(arguments, settings));
    annotate(&mut out, init.as_ref(), settings);
    scraping::redirect(&mut out, settings);
    place(&mut out, proxy, init);
    Ok(Injected { pod: out, refused: None })
}

fn own_proxy(pod: &Resource<Pod>) -> Option<&Container> {
    let spec = &pod.spec.spec;
    spec.containers.iter().chain(&spec.init_containers).find(|container| container.name == PROXY_CONTAINER)
}

fn template(pod: &Resource<Pod>) -> Result<Template, Vec<Diagnostic>> {
    let names = pod.metadata.annotation(TEMPLATES).unwrap_or("sidecar");
    let names: Vec<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match names.as_slice() {
        [] | ["sidecar"] => Ok(Template::Sidecar),
        ["gateway"] => Ok(Template::Gateway),
        _ => {
            let message = format!("`{}` is not a template that there is: one of sidecar and gateway", names.join(","));
            Err(vec![problem(pod, TEMPLATES, message)])
        }
    }
}

/// Something wrong with an annotation.
fn problem(pod: &Resource<Pod>, annotation: &str, message: String) -> Diagnostic {
    let field = format!("metadata.annotations[{annotation}]");
    let (line, column) = pod.position_of("metadata.annotations");
    Diagnostic {
        code: code::INVALID.to_owned(),
        severity: Severity::Error,
        object: Some(pod.key().into()),
        file: pod.origin.file.to_string(),
        line,
        column,
        field,
        message,
        help: None,
    }
}

fn label(pod: &mut Resource<Pod>, template: Template) {
    let (name, revision) = (canonical_name(pod), canonical_revision(pod));
    let labels = &mut pod.metadata.labels;
    if template == Template::Sidecar {
        labels.entry(TLS_MODE.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    labels.entry(CANONICAL_NAME.to_owned()).or_insert(name);
    labels.entry(CANONICAL_REVISION.to_owned()).or_insert(revision);
}

/// `service.istio.io/canonical-name`, else the usual labels, else the workload's name, cut to a label's length.
fn canonical_name(pod: &Resource<Pod>) -> String {
    let labelled = ["app.kubernetes.io/name", "app"].iter().find_map(|key| pod.metadata.label(key));
    let name = labelled.map_or_else(|| workload_name(pod), str::to_owned);
    name.chars().take(MAX_LABEL).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
}

fn canonical_revision(pod: &Resource<Pod>) -> String {
    let labelled = ["app.kubernetes.io/version", "version"].iter().find_map(|key| pod.metadata.label(key));
    labelled.unwrap_or("latest").to_owned()
}

/// The Deployment behind a ReplicaSet, else the owner, else the pod.
fn workload_name(pod: &Resource<Pod>) -> String {
    let metadata = &pod.metadata;
    let owner = metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
    match owner.or_else(|| metadata.owner_references.first()) {
        Some(owner) if owner.kind == "ReplicaSet" => {
            owner.name.rsplit_once('-').map_or_else(|| owner.name.clone(), |(name, _)| name.to_owned())
        }
        Some(owner) => owner.name.clone(),
        None if metadata.name.is_empty() => metadata.generate_name.trim_end_matches('-').to_owned(),
        None => metadata.name.clone(),
    }
}

fn annotate(pod: &mut Resource<Pod>, init: Option<&Container>, settings: &Settings) {
    let status = json!({
        "initContainers": init.map(|init| [&init.name]),
        "containers": [PROXY_CONTAINER],
        "volumes": [TOKEN_VOLUME, ROOT_VOLUME],
        "imagePullSecrets": null,
        "revision": settings.revision,
    });
    let first = pod.spec.spec.containers.iter().find(|container| container.name != PROXY_CONTAINER);
    let first = first.map(|container| container.name.clone());
    let annotations = &mut pod.metadata.annotations;
    annotations.insert(STATUS.to_owned(), status.to_string());
    for (key, name) in [DEFAULT_CONTAINER, DEFAULT_LOGS_CONTAINER].into_iter().zip([first.clone(), first]) {
        if let Some(name) = name {
            annotations.entry(key.to_owned()).or_insert(name);
        }
    }
}

/// Puts the containers and their volumes into the pod. The proxy takes the place of a container of its name; redirection
/// comes after the pod's own init containers would still reach the network, that is last (Istio's order).
fn place(pod: &mut Resource<Pod>, proxy: Container, init: Option<Container>) {
    let spec = &mut pod.spec.spec;
    let places = [&mut spec.containers, &mut spec.init_containers];
    let own = places.into_iter().flatten().find(|container| container.name == PROXY_CONTAINER);
    match own {
        Some(own) => *own = proxy,
        None => spec.containers.push(proxy),
    }
    spec.init_containers.retain(|container| container.name != INIT_CONTAINER);
    spec.init_containers.extend(init);
    let token = json!({"sources": [{"serviceAccountToken":
        {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}]});
    let root = ObjectVolume { name: "istio-ca-root-cert".to_owned(), ..ObjectVolume::default() };
    spec.volumes.retain(|volume| volume.name != TOKEN_VOLUME && volume.name != ROOT_VOLUME);
    spec.volumes.push(Volume { name: TOKEN_VOLUME.to_owned(), projected: Some(token), ..Volume::default() });
    spec.volumes.push(Volume { name: ROOT_VOLUME.to_owned(), config_map: Some(root), ..Volume::default() });
}

#[cfg(test)]
mod tests;

//! All that is looked at together: the objects of the texts by kind, the workloads that they make, and the mesh's settings.

use std::collections::{HashMap, HashSet};

use lateen_api::diagnostic::Subject;
use serde_json::Value;

use crate::document::{Document, Labels, text};

pub(crate) const NETWORKING: &str = "networking.istio.io";
pub(crate) const SECURITY: &str = "security.istio.io";
pub(crate) const TELEMETRY: &str = "telemetry.istio.io";
pub(crate) const GATEWAY_API: &str = "gateway.networking.k8s.io";
pub(crate) const CORE: &str = "";
pub(crate) const APPS: &str = "apps";
pub(crate) const ADMISSION: &str = "admissionregistration.k8s.io";
pub(crate) const EXTENSIONS: &str = "apiextensions.k8s.io";
/// The name of the proxy's container, by which an injected pod is known.
const PROXY: &str = "istio-proxy";

/// The objects, by kind.
#[derive(Debug, Default)]
pub(crate) struct World {
    documents: Vec<Document>,
    by_kind: HashMap<(String, String), Vec<usize>>,
    /// The mesh config as it is written; null without one.
    pub(crate) mesh_config: Value,
    pub(crate) root_namespace: String,
    /// Seconds since 1970, for what expires.
    pub(crate) now: Option<i64>,
    /// `MeshNetworks`, if given.
    pub(crate) mesh_networks: Option<Document>,
    /// Objects that the mesh was built of.
    pub(crate) in_mesh: HashSet<Subject>,
}

/// A pod, or what a Deployment makes pods of.
pub(crate) struct Workload<'a> {
    pub(crate) document: &'a Document,
    pub(crate) labels: &'a Labels,
    pub(crate) annotations: &'a Labels,
    /// A PodSpec.
    pub(crate) spec: &'a Value,
    /// Where the PodSpec stands.
    pub(crate) field: &'static str,
}

impl World {
    pub(crate) fn new(documents: Vec<Document>, mesh_config: Value) -> Self {
        let mut by_kind: HashMap<(String, String), Vec<usize>> = HashMap::new();
        for (index, document) in documents.iter().enumerate() {
            by_kind.entry((document.group.clone(), document.kind.clone())).or_default().push(index);
        }
        let root = text(&mesh_config["rootNamespace"]);
        let root_namespace = if root.is_empty() { "istio-system" } else { root }.to_owned();
        Self {
            documents,
            by_kind,
            mesh_config,
            root_namespace,
            now: None,
            mesh_networks: None,
            in_mesh: HashSet::new(),
        }
    }

    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter()
    }

    /// Whether the mesh could read an object.
    pub(crate) fn is_in_mesh(&self, document: &Document) -> bool {
        self.in_mesh.contains(&document.subject())
    }

    /// The objects of a kind, in the order of the texts.
    pub(crate) fn each(&self, group: &str, kind: &str) -> impl Iterator<Item = &Document> {
        let found = self.by_kind.get(&(group.to_owned(), kind.to_owned()));
        found.into_iter().flatten().filter_map(|index| self.documents.get(*index))
    }

    /// One object, if it is there.
    pub(crate) fn find(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&Document> {
        self.each(group, kind).find(|document| document.namespace == namespace && document.name == name)
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Document> {
        self.find(CORE, "Namespace", "", name)
    }

    /// Pods that are written as such.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Workload<'_>> {
        self.each(CORE, "Pod").map(|document| Workload {
            labels: &document.labels,
            annotations: &document.annotations,
            spec: document.spec(),
            field: "spec",
            document,
        })
    }

    pub(crate) fn deployments(&self) -> impl Iterator<Item = Workload<'_>> {
        self.templates("Deployment")
    }

    fn templates(&self, kind: &'static str) -> impl Iterator<Item = Workload<'_>> {
        self.each(APPS, kind).map(|document| Workload {
            labels: &document.template.0,
            annotations: &document.template.1,
            spec: &document.spec()["template"]["spec"],
            field: "spec.template.spec",
            document,
        })
    }

    /// Everything that makes pods, and pods.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = Workload<'_>> {
        let others = ["StatefulSet", "DaemonSet", "ReplicaSet"].into_iter().flat_map(|kind| self.templates(kind));
        self.pods().chain(self.deployments()).chain(others)
    }
}

impl<'a> Workload<'a> {
    pub(crate) fn namespace(&self) -> &'a str {
        &self.document.namespace
    }

    pub(crate) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        crate::document::items(&self.spec["containers"]).iter()
    }

    /// Containers and init containers: a native sidecar is one of those.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &'a Value> {
        self.containers().chain(crate::document::items(&self.spec["initContainers"]))
    }

    /// The image of its proxy.
    pub(crate) fn proxy_image(&self) -> Option<&'a str> {
        let proxy = self.all_containers().find(|container| text(&container["name"]) == PROXY)?;
        Some(text(&proxy["image"])).filter(|image| !image.is_empty())
    }

    /// Whether it has, or will be given, a proxy: what it says itself comes before what its namespace says.
    pub(crate) fn is_in_mesh(&self, world: &World) -> bool {
        const INJECT: &str = "sidecar.istio.io/inject";
        if self.proxy_image().is_some() {
            return true;
        }
        if let Some(own) = self.labels.get(INJECT).or_else(|| self.annotations.get(INJECT)) {
            return own == "true";
        }
        let namespace = world.namespace(self.namespace());
        namespace.is_some_and(is_injected)
    }

    /// Whether a node's proxy takes its traffic.
    pub(crate) fn is_ambient(&self) -> bool {
        self.annotations.get("ambient.istio.io/redirection").is_some_and(|value| value == "enabled")
    }
}

/// Whether a namespace asks for sidecars.
pub(crate) fn is_injected(namespace: &Document) -> bool {
    namespace.labels.get("istio-injection").is_some_and(|value| value == "enabled")
}

/// Part of an Istio control plane, by its labels.
pub(crate) fn is_control_plane(document: &Document) -> bool {
    document.labels.contains_key("istio") || document.labels.get("release").is_some_and(|release| release == "istio")
}

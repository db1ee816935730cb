//! A mesh made from YAML.

use std::sync::Arc;

use lateen_api::Object;
use lateen_mesh::{Mesh, MeshConfig, Workload, assume};

/// Reads objects that must be without fault; their order is their age.
pub(crate) fn objects(text: &str) -> Vec<Object> {
    let parsed = lateen_api::parse_documents("test.yaml", text, "default");
    assert!(parsed.diagnostics.iter().all(|found| !found.is_error()), "{:#?}", parsed.diagnostics);
    let aged: Vec<Object> = parsed.objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect();
    assume::running(&aged)
}

pub(crate) fn mesh(text: &str) -> Mesh {
    Mesh::build(&objects(text), &Arc::new(MeshConfig::default()), None)
}

pub(crate) fn workload<'a>(mesh: &'a Mesh, namespace: &str, name: &str) -> &'a Arc<Workload> {
    mesh.workload(namespace, name).unwrap_or_else(|| panic!("no {namespace}/{name}"))
}

/// A Deployment with one pod `<name>-0`, labelled `app: <name>` and with a service account of that name.
pub(crate) fn deployment(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers: [{{name: {name}, image: {name}, ports: [{{name: web, containerPort: 8080}}]}}]
"
    )
}

/// A Service in front of it.
pub(crate) fn service(namespace: &str, name: &str, ports: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: {ports}}}
"
    )
}

/// Any object of an Istio kind.
pub(crate) fn object(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let group = match kind {
        "Telemetry" => "telemetry",
        _ if kind.ends_with("Policy") || kind.ends_with("Authentication") => "security",
        _ => "networking",
    };
    format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

//! What an installation consists of on a cluster: every object, made of a few values, in the one place where `lateen install`,
//! `lateen manifest generate` and `deploy/kubernetes` have them from.
//!
//! Pure: values in, objects out, in the order in which they are best applied.

mod gateway;
mod lateend;
mod rights;
pub mod tag;
mod values;
mod webhooks;

use lateen_api::schema;
use serde_json::{Map, Value, json};

pub use values::{Profile, Values};

/// Where the control plane lives, and the mesh's own policy.
pub const NAMESPACE: &str = "istio-system";
/// On every object of an installation, with its revision; what has it and is not wanted any more is removed.
pub const INSTALL_LABEL: &str = "lateen.dev/install";
/// Which control plane an object belongs to.
pub const REVISION_LABEL: &str = "istio.io/rev";
/// The revision that namespaces with `istio-injection=enabled` mean.
pub const DEFAULT_REVISION: &str = "default";

/// The objects of an installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// The namespace and what defines the kinds. They outlive the installation: with them would go everything of the mesh.
    pub foundation: Vec<Value>,
    /// The control plane, and what it may do.
    pub control_plane: Vec<Value>,
    /// What has pods injected: it is of use, and no hindrance, once the control plane answers.
    pub webhooks: Vec<Value>,
    /// Injected pods of our own.
    pub gateways: Vec<Value>,
}

impl Objects {
    /// Of an installation with these values.
    ///
    /// # Errors
    /// A kind that cannot be defined, which is a fault of this program.
    pub fn new(values: &Values) -> Result<Self, String> {
        let mut foundation = vec![namespace()];
        for kind in schema::kinds() {
            foundation.push(schema::definition(kind)?);
        }
        let mut control_plane = rights::objects(values);
        control_plane.extend(lateend::objects(values));
        let webhooks = vec![webhooks::of_revision(values)];
        let gateways = if values.ingress_gateway.enabled { gateway::objects(values) } else { Vec::new() };
        let mut objects = Self { foundation, control_plane, webhooks, gateways };
        for object in [&mut objects.control_plane, &mut objects.webhooks, &mut objects.gateways].into_iter().flatten() {
            label(object, values);
        }
        Ok(objects)
    }

    /// All of them, in the order of their use.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        [&self.foundation, &self.control_plane, &self.webhooks, &self.gateways].into_iter().flatten()
    }
}

/// Whether a revision or a tag may be called this: a name of Kubernetes that leaves room for what is put before it.
pub fn is_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

/// `lateend`, and of a revision `lateend-canary`: the name of nearly everything that belongs to a control plane.
pub fn name(revision: &str) -> String {
    named("lateend", revision)
}

/// The webhook configuration of a revision.
pub fn webhook_configuration(revision: &str) -> String {
    named("lateen-sidecar-injector", revision)
}

/// The ConfigMap with the mesh config of a revision.
fn mesh_config_map(revision: &str) -> String {
    named("istio", revision)
}

fn named(name: &str, revision: &str) -> String {
    if revision == DEFAULT_REVISION { name.to_owned() } else { format!("{name}-{revision}") }
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
}

/// The labels by which people and tools find an object.
fn label(object: &mut Value, values: &Values) {
    let mut labels = Map::new();
    for (key, value) in [
        ("app.kubernetes.io/part-of", "lateen"),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
        (REVISION_LABEL, &values.revision),
        (INSTALL_LABEL, &values.revision),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    if let Some(own) = object["metadata"]["labels"].as_object() {
        labels.extend(own.clone());
    }
    object["metadata"]["labels"] = Value::Object(labels);
}

/// How an installation was asked for, so that an upgrade of it can ask for the same: profile and `key=value` pairs.
pub fn record(values: &Values, profile: &str, pairs: &[(String, String)]) -> Value {
    let mut record = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&record_name(&values.revision)),
        "data": {"profile": profile, "set": json!(pairs).to_string(), "version": env!("CARGO_PKG_VERSION")}});
    label(&mut record, values);
    record
}

/// The ConfigMap that says how a revision was installed.
pub fn record_name(revision: &str) -> String {
    named("lateen-install", revision)
}

/// `metadata` in the control plane's namespace.
fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE})
}

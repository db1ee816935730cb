//! Objects onto a cluster and off it: server-side apply under one field manager, so that what others set stays theirs.

use anyhow::Context as _;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Map, Value, json};

/// Under which our changes are known.
const MANAGER: &str = "lateen";

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Created,
    Changed,
    Unchanged,
    Removed,
}

impl Outcome {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

/// `Deployment istio-system/lateend`.
pub(crate) fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Of objects like this one.
fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text(&object["kind"])));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What an API server says, once and in its own words.
fn plain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::Error::msg(status.message),
        other => other.into(),
    }
}

/// Makes an object what it should be, or says what that would change.
pub(crate) async fn apply(client: &Client, object: &Value, dry_run: bool) -> anyhow::Result<Outcome> {
    let api = api(client, object);
    let before = api.get_opt(name(object)).await.map_err(plain).with_context(|| format!("read {}", named(object)))?;
    if dry_run && before.is_none() {
        // What it is to be in may not be there either.
        return Ok(Outcome::Created);
    }
    let parameters = PatchParams { dry_run, ..PatchParams::apply(MANAGER).force() };
    let after = api.patch(name(object), &parameters, &Patch::Apply(object)).await;
    let after = after.map_err(plain).with_context(|| format!("apply {}", named(object)))?;
    Ok(match before {
        None => Outcome::Created,
        Some(before) if substance(&before) == substance(&after) => Outcome::Unchanged,
        Some(_) => Outcome::Changed,
    })
}

/// An object without what an API server notes beside it.
fn substance(object: &DynamicObject) -> Value {
    let mut json = json!(object);
    if let Some(fields) = json.as_object_mut() {
        fields.shift_remove("status");
    }
    if let Some(metadata) = json["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.shift_remove(field);
        }
    }
    json
}

/// Removes an object; whether it was there.
pub(crate) async fn delete(client: &Client, object: &Value, dry_run: bool) -> anyhow::Result<bool> {
    let parameters = DeleteParams { dry_run, ..DeleteParams::background() };
    match api(client, object).delete(name(object), &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(plain(error)).with_context(|| format!("remove {}", named(object))),
    }
}

/// An object by what names it.
pub(crate) async fn get(client: &Client, object: &Value) -> anyhow::Result<Option<Value>> {
    let found = api(client, object).get_opt(name(object)).await.map_err(plain);
    let found = found.with_context(|| format!("read {}", named(object)))?;
    Ok(found.map(|found| json!(found)))
}

/// What names an object.
pub(crate) fn reference(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(name));
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

/// All objects of a kind, in all namespaces, with these labels; none where the cluster does not have the kind.
pub(crate) async fn list(
    client: &Client,
    (api_version, kind): (&str, &str),
    labels: &str,
) -> anyhow::Result<Vec<Value>> {
    let like = reference(api_version, kind, None, "");
    match api(client, &like).list(&ListParams::default().labels(labels)).await {
        Ok(list) => Ok(list
            .items
            .into_iter()
            .map(|object| {
                let mut object = json!(object);
                // In a list, the kind is said once for all.
                object["apiVersion"] = json!(api_version);
                object["kind"] = json!(kind);
                object
            })
            .collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(plain(error)).with_context(|| format!("list {kind} of {api_version}")),
    }
}

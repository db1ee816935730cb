//! What a change would do, before it is made: what would be wrong then, which proxies would be sent what, and who could call
//! whom that cannot now, or the other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lateen_api::{Diagnostic, Object, ObjectKey, parse_documents, validate};
use lateen_explain::{Objects, World};
use lateen_mesh::{InForce, Mesh, ProxyKind, Workload};
use lateen_translate::{Cache, Named, ProxyView, resources};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::explaining::{self, Access, Call, Client, Server};
use super::proxy_config::{TYPES, yaml};
use super::{Api, Failure};
use crate::push::Snapshot;

/// Of so many resources it is shown how they differ; of the others, that they do.
const MOST_SHOWN: usize = 20;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Proposed {
    /// YAML documents to be applied.
    #[serde(default)]
    text: String,
    /// For objects that name none.
    #[serde(default)]
    namespace: String,
    /// Objects to be deleted.
    #[serde(default)]
    #[schema(value_type = Vec<super::openapi::Key>)]
    delete: Vec<ObjectKey>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    /// Of the configuration that it was compared with.
    pub(super) revision: u64,
    /// Nothing could be written: what is wrong with the text itself.
    pub(super) refused: bool,
    /// Of the text, and what would be wrong in the mesh that is not now.
    #[schema(value_type = Vec<super::openapi::Finding>)]
    pub(super) findings: Vec<Diagnostic>,
    /// What would be mended.
    #[schema(value_type = Vec<super::openapi::Finding>)]
    pub(super) mended: Vec<Diagnostic>,
    pub(super) objects: Vec<Effect>,
    pub(super) resources: Vec<Difference>,
    /// Calls that would fare otherwise.
    pub(super) access: Vec<Turned>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Effect {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub(super) action: &'static str,
}

/// A resource that proxies would be sent, or would lose.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    /// `listener`, `route`, `cluster` or `endpoint`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// `namespace/name` of the workloads whose proxies have it alike.
    pub(super) workloads: Vec<String>,
    /// YAML; empty where there was none, or where it is too long to be shown.
    pub(super) before: String,
    pub(super) after: String,
    #[schema(inline)]
    pub(super) change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Added,
    Changed,
    Removed,
}

/// A call that would fare otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Turned {
    pub(super) client: Client,
    pub(super) server: Server,
    pub(super) before: Call,
    pub(super) after: Call,
}

/// `POST /api/v1/preview`
#[utoipa::path(post, path = "/api/v1/preview", operation_id = "preview", request_body = Proposed,
    responses((status = 200, body = Preview), (status = 400, body = super::Complaint)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Json(proposed): Json<Proposed>,
) -> Result<Json<Preview>, Failure> {
    explaining::in_turn(&api, move |snapshot| of(&snapshot, &proposed)).await.map(Json)
}

fn of(snapshot: &Snapshot, proposed: &Proposed) -> Preview {
    let namespace = if proposed.namespace.is_empty() { "default" } else { &proposed.namespace };
    let parsed = parse_documents("edited", &proposed.text, namespace);
    let mut findings = parsed.diagnostics;
    findings.extend(parsed.objects.iter().flat_map(validate));
    let refused = findings.iter().any(Diagnostic::is_error);
    let mut preview = Preview {
        revision: snapshot.revision,
        refused,
        findings,
        mended: Vec::new(),
        objects: effects(snapshot, &parsed.objects, &proposed.delete),
        resources: Vec::new(),
        access: Vec::new(),
    };
    if !refused {
        let after = after(snapshot, &parsed.objects, &proposed.delete);
        compare(snapshot, after, &mut preview);
    }
    preview
}

fn effects(snapshot: &Snapshot, objects: &[Object], delete: &[ObjectKey]) -> Vec<Effect> {
    let effect = |key: &ObjectKey, action| Effect {
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        action,
    };
    let now = |key: &ObjectKey| snapshot.contents.get(key.kind, &key.namespace, &key.name);
    let applied = objects.iter().map(|object| {
        let key = object.key();
        let action = match now(&key) {
            None => "created",
            Some(now) if now.same_content(object) => "unchanged",
            Some(_) => "configured",
        };
        effect(&key, action)
    });
    let deleted = delete.iter().filter(|key| now(key).is_some()).map(|key| effect(key, "deleted"));
    applied.chain(deleted).collect()
}

/// All objects as they would be.
fn after(snapshot: &Snapshot, objects: &[Object], delete: &[ObjectKey]) -> Vec<Object> {
    let mut all: BTreeMap<ObjectKey, Object> =
        snapshot.contents.objects().map(|object| (object.key(), object.clone())).collect();
    let youngest = all.values().map(Object::age).max().unwrap_or_default();
    for key in delete {
        all.remove(key);
    }
    for (object, more) in objects.iter().zip(1..) {
        let age = all.get(&object.key()).map_or(youngest + more, Object::age);
        all.insert(object.key(), object.clone().with_age(age));
    }
    all.into_values().collect()
}

fn compare(snapshot: &Snapshot, after: Vec<Object>, preview: &mut Preview) {
    // Keys of issuers are no part of either, so that only the objects make a difference.
    let before: Vec<Object> = snapshot.contents.objects().cloned().collect();
    let config = snapshot.mesh().config();
    let (old, new) = (InForce::new(&before, config, None), InForce::new(&after, config, None));
    let (was, would) = (old.findings(&before), new.findings(&after));
    let same = |a: &Diagnostic, b: &Diagnostic| (&a.code, &a.object, &a.message) == (&b.code, &b.object, &b.message);
    let missing = |from: &[Diagnostic], of: &[Diagnostic]| -> Vec<Diagnostic> {
        of.iter().filter(|it| !from.iter().any(|other| same(it, other))).cloned().collect()
    };
    preview.findings.extend(missing(&was, &would));
    preview.mended = missing(&would, &was);
    preview.resources = differences(&old.mesh, &new.mesh);
    let mesh_config = || (**config).clone();
    let (old, new) =
        (World::new(before, Objects::Running, mesh_config()), World::new(after, Objects::Running, mesh_config()));
    // Meshes of more calls than can be looked at are told of by their resources alone.
    if let (Ok(old), Ok(new)) = (explaining::of_all(&old, 0, ""), explaining::of_all(&new, 0, "")) {
        preview.access = turned(&old, &new);
    }
}

fn turned(old: &Access, new: &Access) -> Vec<Turned> {
    let calls = |access: &Access| -> HashMap<(String, String), Call> {
        let rows = access.clients.iter().zip(&access.calls);
        rows.flat_map(|(client, row)| {
            access.servers.iter().zip(row).map(move |(server, call)| (names(client, server), call.clone()))
        })
        .collect()
    };
    let before = calls(old);
    let mut out = Vec::new();
    for (client, row) in new.clients.iter().zip(&new.calls) {
        for (server, call) in new.servers.iter().zip(row) {
            let was = before.get(&names(client, server)).filter(|was| was.verdict != call.verdict);
            out.extend(was.map(|was| Turned {
                client: client.clone(),
                server: server.clone(),
                before: was.clone(),
                after: call.clone(),
            }));
        }
    }
    out
}

fn names(client: &Client, server: &Server) -> (String, String) {
    let name = |namespace: &str, name: &str| format!("{namespace}/{name}");
    (name(&client.namespace, &client.workload), format!("{} {}", server.url, name(&server.namespace, &server.workload)))
}

/// Before and after.
type Pair = (Option<Arc<Named>>, Option<Arc<Named>>);

/// The word for a type, the resource's name, and its versions before and after.
type Differing = (&'static str, Arc<str>, u64, u64);

/// Of each workload's proxy, what differs; the same difference at several is told once.
fn differences(old: &Mesh, new: &Mesh) -> Vec<Difference> {
    let (old_cache, new_cache) = (Cache::new(), Cache::new());
    let mut found: BTreeMap<Differing, (Pair, BTreeSet<String>)> = BTreeMap::new();
    for workload in representatives(new) {
        let view = |mesh: &Mesh| ProxyView::of(mesh, &workload.namespace, &workload.name);
        let Some(now) = view(new) else { continue };
        let was = view(old);
        for (url, kind) in TYPES {
            let before = was.as_ref().map(|was| resources(old, was, url, &old_cache)).unwrap_or_default();
            for (name, pair) in paired(before, resources(new, &now, url, &new_cache)) {
                let version = |it: &Option<Arc<Named>>| it.as_ref().map_or(0, |it| it.version);
                let versions = (version(&pair.0), version(&pair.1));
                if versions.0 != versions.1 {
                    let entry = found.entry((kind, name, versions.0, versions.1));
                    let (_, workloads) = entry.or_insert_with(|| (pair, BTreeSet::new()));
                    workloads.insert(format!("{}/{}", workload.namespace, workload.owner));
                }
            }
        }
    }
    let mut shown = 0;
    found
        .into_iter()
        .map(|((kind, name, ..), (pair, workloads))| told(kind, &name, &pair, workloads, &mut shown))
        .collect()
}

/// One workload of each owner, of those with a proxy.
fn representatives(mesh: &Mesh) -> Vec<&Workload> {
    let mut seen = BTreeSet::new();
    let own = mesh.workloads().filter(|workload| workload.proxy != ProxyKind::None);
    own.filter(|workload| seen.insert((&*workload.namespace, &*workload.owner))).map(|workload| &**workload).collect()
}

fn paired(before: Vec<Arc<Named>>, after: Vec<Arc<Named>>) -> BTreeMap<Arc<str>, Pair> {
    let mut pairs: BTreeMap<Arc<str>, Pair> = BTreeMap::new();
    for named in before {
        let name = Arc::clone(&named.name);
        pairs.entry(name).or_default().0 = Some(named);
    }
    for named in after {
        let name = Arc::clone(&named.name);
        pairs.entry(name).or_default().1 = Some(named);
    }
    pairs
}

fn told(
    kind: &'static str,
    name: &str,
    (before, after): &Pair,
    workloads: BTreeSet<String>,
    shown: &mut usize,
) -> Difference {
    *shown += 1;
    let text = |named: &Option<Arc<Named>>| match named {
        Some(named) if *shown <= MOST_SHOWN => yaml(named),
        _ => String::new(),
    };
    Difference {
        kind,
        name: name.to_owned(),
        workloads: workloads.into_iter().collect(),
        before: text(before),
        after: text(after),
        change: match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        },
    }
}

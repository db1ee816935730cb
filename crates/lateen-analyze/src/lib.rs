//! What is wrong, or surprising, in a set of objects: what `lateen analyze` says of files before anything runs.
//!
//! Three kinds of findings come together here: of parsing and validation (`lateen-api`), of what needs the mesh's indices
//! (`lateen_mesh::analyze`), and of what the texts alone show, which is what this crate adds. It has the analyzers of Istio
//! (`istioctl analyze`) by their names and codes; [`catalog`] explains each code.
//!
//! Invariants: no IO, no clock; the same texts always give the same findings, in the order of the texts.

pub mod catalog;
mod checks;
mod document;
mod ingress;
mod mesh_findings;
mod report;
mod suppress;
mod unread;
mod world;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, Environment, Object, ObjectKey, validate_in, yaml};
use lateen_mesh::{Mesh, MeshConfig, assume};
use serde::Serialize;
use serde_json::Value;

pub use checks::{Analyzer, analyzers};
pub use suppress::Suppressions;

use document::Document;
use report::Report;
use world::World;

/// A text and what it is called in findings.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Input<'a> {
    /// Objects: YAML documents or JSON.
    pub texts: &'a [Text<'a>],
    /// Objects of a running mesh, over which those of the texts come.
    pub running: &'a [Object],
    /// Namespace of objects that name none.
    pub namespace: &'a str,
    /// Analyzers that look only where they are named.
    pub requested: &'a [&'a str],
    /// Istio's MeshConfig.
    pub mesh_config: Option<Text<'a>>,
    /// The same, as far as it could be read; Istio's defaults for the rest.
    pub settings: Option<&'a MeshConfig>,
    /// Istio's MeshNetworks.
    pub mesh_networks: Option<Text<'a>>,
    /// Seconds since 1970, to tell certificates that have expired; without it nothing is said of that.
    pub now: Option<i64>,
}

/// A finding, and who finds it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
    /// Istio's identifier of the code (`ReferencedResourceNotFound`), or ours.
    pub name: &'static str,
    /// Names of the analyzers that say it, Istio's where it has one.
    pub analyzers: Vec<&'static str>,
}

/// All findings, in the order of the texts.
pub fn analyze(input: &Input<'_>) -> Vec<Finding> {
    let mut report = Report::default();
    let objects = read(input, &mut report);
    let world = world(input, &objects);
    mesh_findings::add(&objects, &world, input.settings.cloned().unwrap_or_default(), &mut report);
    report.of_mesh = report.findings.len();
    checks::run(&world, input.requested, &mut report);
    let mut findings = report.findings;
    Suppressions::of_annotations(&world).apply(&mut findings);
    let place = |finding: &Finding| {
        let Diagnostic { file, line, column, code, field, object, .. } = &finding.diagnostic;
        (file.clone(), *line, *column, code.clone(), field.clone(), object.clone())
    };
    findings.retain(|finding| finding.diagnostic.file != ingress::ASSUMED);
    findings.sort_by_cached_key(place);
    // The same words about the same object are said once, where they are true first.
    let mut told = HashSet::new();
    findings.retain(|Finding { diagnostic: Diagnostic { code, object, message, .. }, .. }| {
        told.insert((code.clone(), object.clone(), message.clone()))
    });
    findings
}

/// Namespaces of the cluster's own parts, which nobody runs in the mesh.
const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Whether each object keeps the rules of its kind, whatever else there is: how many objects there are, and what is wrong.
pub fn validate(texts: &[Text<'_>], namespace: &str) -> (usize, Vec<Diagnostic>) {
    let (mut count, mut found) = (0, Vec::new());
    for text in texts {
        let parsed = lateen_api::parse_documents(text.name, text.text, namespace);
        count += Document::all(text.name, text.text, namespace).len();
        found.extend(unread::judged(text, parsed.diagnostics));
        found.extend(parsed.objects.iter().flat_map(|object| validate_in(object, Environment::Cluster)));
    }
    (count, found)
}

/// The objects, and what is wrong with each of them alone. Those that break a rule are looked at, too: what they were meant
/// to do with others can be wrong as well.
fn read(input: &Input<'_>, report: &mut Report) -> Vec<Object> {
    let mut objects: Vec<Object> = input.running.to_vec();
    let mut places: HashMap<ObjectKey, usize> = objects.iter().map(Object::key).zip(0..).collect();
    let assumed = Text { name: ingress::ASSUMED, text: ingress::TEXT };
    let is_alone = input.running.is_empty() && !ingress::is_in(input.texts);
    for text in input.texts.iter().copied().chain(is_alone.then_some(assumed)) {
        let parsed = lateen_api::parse_documents(text.name, text.text, input.namespace);
        unread::judged(&text, parsed.diagnostics).for_each(|found| report.parsed(found));
        for object in parsed.objects {
            validate_in(&object, Environment::Cluster).into_iter().for_each(|found| report.parsed(found));
            match places.entry(object.key()) {
                Entry::Vacant(entry) => {
                    entry.insert(objects.len());
                    objects.push(object);
                }
                // What a text says of something that runs is a change of it; twice in texts is a mistake.
                Entry::Occupied(entry) => {
                    let before = std::mem::replace(&mut objects[*entry.get()], object);
                    if *entry.get() >= input.running.len() {
                        report.twice(&objects[*entry.get()], before.origin());
                    }
                }
            }
        }
    }
    objects.retain(|object| !SYSTEM_NAMESPACES.contains(&object.namespace()));
    objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect()
}

fn world(input: &Input<'_>, objects: &[Object]) -> World {
    let mut documents: Vec<Document> =
        input.texts.iter().flat_map(|text| Document::all(text.name, text.text, input.namespace)).collect();
    // Of an object that stands twice, the later one is taken, as by who applies them in turn.
    let mut written: HashSet<Subject> = HashSet::new();
    documents.reverse();
    documents.retain(|document| written.insert(document.subject()));
    documents.reverse();
    // What runs, and what is assumed.
    let others = objects.iter().filter(|object| !written.contains(&object.key().into()));
    documents.extend(others.filter_map(Document::of));
    documents.retain(|document| !SYSTEM_NAMESPACES.contains(&document.namespace.as_str()));
    let config = input.mesh_config.and_then(|config| first(config.text)).unwrap_or(Value::Null);
    let mut world = World::new(documents, config);
    world.now = input.now;
    world.in_mesh = objects.iter().map(|object| object.key().into()).collect();
    world.mesh_networks = input.mesh_networks.and_then(|networks| Document::unnamed("MeshNetworks", &networks));
    world
}

/// The first document of a text.
fn first(text: &str) -> Option<Value> {
    yaml::documents(text).into_iter().flatten().next().map(|node| node.to_json())
}

/// The mesh as it would run.
fn mesh(objects: &[Object], settings: MeshConfig) -> (Vec<Object>, Mesh) {
    let running = assume::running(objects);
    let mesh = Mesh::build(&running, &Arc::new(settings), None);
    (running, mesh)
}

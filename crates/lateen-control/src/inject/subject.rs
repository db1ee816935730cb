//! What is injected: a pod, or the template that a workload makes pods of, as JSON, and where it was written.

use std::collections::BTreeMap;

use lateen_api::diagnostic::{Subject as Object, code};
use lateen_api::yaml::Positions;
use lateen_api::{Diagnostic, Severity};
use serde_json::Value;

/// Annotations that Istio's injector honours and that have no effect here; nothing but comfort depends on them.
const IGNORED: &[(&str, &str)] = &[
    (
        "sidecar.istio.io/agentLogLevel",
        "there is no agent beside the proxy: sidecar.istio.io/logLevel is for all of it",
    ),
    ("sidecar.istio.io/componentLogLevel", "it names parts of Envoy: sidecar.istio.io/logLevel is for the whole proxy"),
    ("sidecar.istio.io/bootstrapOverride", "the proxy has no bootstrap: all of its configuration comes by xDS"),
    ("sidecar.istio.io/statsInclusionPrefixes", "all statistics are there"),
    ("sidecar.istio.io/statsInclusionSuffixes", "all statistics are there"),
    ("sidecar.istio.io/statsInclusionRegexps", "all statistics are there"),
    ("sidecar.istio.io/statsHistogramBuckets", "the buckets of histograms are fixed"),
    ("sidecar.istio.io/statsHistogramBins", "the buckets of histograms are fixed"),
    ("sidecar.istio.io/statsFlushInterval", "statistics are current whenever they are read"),
    ("sidecar.istio.io/statsEvictionInterval", "statistics are not thrown away"),
    ("sidecar.istio.io/statsCompression", "statistics are not compressed"),
    ("sidecar.istio.io/extraStatTags", "tags are chosen by Telemetry"),
    ("readiness.status.sidecar.istio.io/applicationPorts", "the app's own probes say when it is ready"),
];

/// The workload behind a pod that does not say so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

/// Where the pod was written.
#[derive(Debug, Clone)]
pub struct Place {
    /// As the user named it.
    pub file: String,
    /// The object that it is in.
    pub object: Option<Object>,
    /// Where in the object: `spec.template`; empty for a pod.
    pub path: String,
    /// Of the object's text.
    pub positions: Positions,
}

impl Place {
    /// Of a pod that did not come from a text.
    pub fn nowhere(source: &str) -> Self {
        Self { file: source.to_owned(), object: None, path: String::new(), positions: Positions::default() }
    }
}

/// A pod that may be injected.
#[derive(Debug)]
pub struct Subject<'a> {
    /// `metadata` and `spec`.
    pub pod: &'a Value,
    pub namespace: &'a str,
    pub maker: Option<Maker>,
    pub labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    place: Place,
}

impl<'a> Subject<'a> {
    /// # Errors
    /// Labels or annotations that are no texts, a spec that is none.
    pub fn new(
        pod: &'a Value,
        namespace: &'a str,
        maker: Option<Maker>,
        place: Place,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut subject = Self { pod, namespace, maker, labels: BTreeMap::new(), annotations: BTreeMap::new(), place };
        let mut problems = Vec::new();
        for field in ["labels", "annotations"] {
            match texts(&pod["metadata"][field]) {
                Ok(found) if field == "labels" => subject.labels = found,
                Ok(found) => subject.annotations = found,
                Err(key) => {
                    let field =
                        if key.is_empty() { format!("metadata.{field}") } else { format!("metadata.{field}.{key}") };
                    problems.push(subject.problem(&field, "a text is expected (in YAML, put it in quotes)".to_owned()));
                }
            }
        }
        if !pod["spec"]["containers"].is_array() {
            problems.push(subject.problem("spec.containers", "a pod has a list of containers".to_owned()));
        }
        if problems.is_empty() { Ok(subject) } else { Err(problems) }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// What it says of a container, an init container or not.
    pub(super) fn container(&self, name: &str) -> Option<&'a Value> {
        ["containers", "initContainers"]
            .iter()
            .find_map(|field| self.pod["spec"][field].as_array()?.iter().find(|container| container["name"] == name))
    }

    /// The Deployment behind a ReplicaSet, else the owner, else the pod.
    pub(super) fn workload(&self) -> Maker {
        let metadata = &self.pod["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let owners = metadata["ownerReferences"].as_array();
        let owners = || owners.into_iter().flatten();
        let owner = owners().find(|owner| owner["controller"] == true).or_else(|| owners().next());
        let of = |owner: &Value| Maker {
            api_version: text(&owner["apiVersion"]),
            kind: text(&owner["kind"]),
            name: text(&owner["name"]),
        };
        if let Some(owner) = owner {
            let owner = of(owner);
            // A ReplicaSet's name is its Deployment's and a digest of the template.
            return match owner.name.rsplit_once('-') {
                Some((name, _)) if owner.kind == "ReplicaSet" => {
                    Maker { kind: "Deployment".to_owned(), name: name.to_owned(), api_version: owner.api_version }
                }
                _ => owner,
            };
        }
        if let Some(maker) = &self.maker {
            return maker.clone();
        }
        let name = match metadata["name"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => text(&metadata["generateName"]).trim_end_matches('-').to_owned(),
        };
        Maker { api_version: "v1".to_owned(), kind: "Pod".to_owned(), name }
    }

    /// Something wrong with an annotation.
    pub(super) fn wrong(&self, annotation: &str, message: String) -> Diagnostic {
        self.finding((Severity::Error, code::INVALID), &in_brackets(annotation), &with_dots(annotation), message)
    }

    /// Something wrong with a field of the pod.
    pub(super) fn problem(&self, field: &str, message: String) -> Diagnostic {
        self.finding((Severity::Error, code::INVALID), field, field, message)
    }

    /// `field`: as it is shown; `path`: as it is among the positions.
    fn finding(&self, (severity, code): (Severity, &str), field: &str, path: &str, message: String) -> Diagnostic {
        let Place { file, object, path: around, positions } = &self.place;
        let inside = |field: &str| if around.is_empty() { field.to_owned() } else { format!("{around}.{field}") };
        let field = inside(field);
        let (line, column) = positions.nearest(&inside(path)).unwrap_or_default();
        Diagnostic {
            code: code.to_owned(),
            severity,
            object: object.clone(),
            file: file.clone(),
            line,
            column,
            field,
            message,
            help: None,
        }
    }

    /// The annotations that have no effect.
    pub(super) fn ignored(&self) -> Vec<Diagnostic> {
        let there = IGNORED.iter().filter(|(annotation, _)| self.annotations.contains_key(*annotation));
        there
            .map(|(annotation, why)| {
                let kind = (Severity::Warning, code::UNSUPPORTED_FIELD);
                self.finding(kind, &in_brackets(annotation), &with_dots(annotation), format!("it has no effect: {why}"))
            })
            .collect()
    }
}

fn in_brackets(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

fn with_dots(annotation: &str) -> String {
    format!("metadata.annotations.{annotation}")
}

/// A mapping of texts; else the key of what is none.
fn texts(value: &Value) -> Result<BTreeMap<String, String>, String> {
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                _ => Err(key.clone()),
            })
            .collect(),
        _ => Err(String::new()),
    }
}

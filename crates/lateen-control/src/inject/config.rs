//! The injector's configuration, as Istio keeps it: the ConfigMap `istio-sidecar-injector`, key `config`.
//!
//! A template here is a part of a pod, in YAML, that is laid over the pod (a strategic merge); it is no program. Istio's are
//! programs of Go's template language, of which nothing is understood here: one is refused.

use std::collections::BTreeMap;

use lateen_api::yaml::{Node, documents};
use serde::Deserialize;
use serde_json::Value;

/// The ConfigMap's name in the control plane's namespace, and its key.
pub const CONFIG_MAP: &str = "istio-sidecar-injector";
pub const CONFIG_KEY: &str = "config";
/// What this program has built in; a template of such a name takes its place.
pub const BUILT_IN: [&str; 2] = ["sidecar", "gateway"];

/// What an administrator may say about injection.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectorConfig {
    /// Whether pods in namespaces that ask for it are injected that do not ask themselves.
    pub enabled: bool,
    /// Pods that are injected all the same, unless they say no.
    pub always: Vec<Selector>,
    /// Pods that are not, unless they say yes.
    pub never: Vec<Selector>,
    /// For pods that ask for no template.
    pub default_templates: Vec<String>,
    /// Several under one name.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Parts of pods, by name.
    pub templates: BTreeMap<String, Value>,
    /// For everything that is injected.
    pub injected_annotations: BTreeMap<String, String>,
}

impl Default for InjectorConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            always: Vec::new(),
            never: Vec::new(),
            default_templates: vec!["sidecar".to_owned()],
            aliases: BTreeMap::new(),
            templates: BTreeMap::new(),
            injected_annotations: BTreeMap::new(),
        }
    }
}

/// Kubernetes' `LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// An empty one selects nothing here, as with Istio's injector.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        if self.match_labels.is_empty() && self.match_expressions.is_empty() {
            return false;
        }
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    policy: Policy,
    always_inject_selector: Vec<Selector>,
    never_inject_selector: Vec<Selector>,
    default_templates: Option<Vec<String>>,
    aliases: BTreeMap<String, Vec<String>>,
    templates: BTreeMap<String, Value>,
    injected_annotations: BTreeMap<String, String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            policy: Policy::Enabled,
            always_inject_selector: Vec::new(),
            never_inject_selector: Vec::new(),
            default_templates: None,
            aliases: BTreeMap::new(),
            templates: BTreeMap::new(),
            injected_annotations: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Enabled,
    Disabled,
}

impl InjectorConfig {
    /// From the text at [`CONFIG_KEY`].
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        let Some(document) = documents(text).into_iter().next() else { return Ok(Self::default()) };
        let json = document.map_err(|error| format!("line {}: {}", error.line, error.message))?.to_json();
        let written: Written = serde_json::from_value(json).map_err(|error| error.to_string())?;
        let usual = Self::default();
        let config = Self {
            enabled: written.policy == Policy::Enabled,
            always: written.always_inject_selector,
            never: written.never_inject_selector,
            default_templates: written.default_templates.unwrap_or(usual.default_templates),
            aliases: written.aliases,
            templates: written
                .templates
                .into_iter()
                .map(|(name, template)| part(&name, template).map(|part| (name, part)))
                .collect::<Result<_, _>>()?,
            injected_annotations: written.injected_annotations,
        };
        let named = config.aliases.values().flatten().chain(&config.default_templates);
        match named.into_iter().find(|name| !config.has(name) && !config.aliases.contains_key(*name)) {
            Some(name) => Err(format!("there is no template `{name}`")),
            None => Ok(config),
        }
    }

    /// From the ConfigMap, as JSON.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn from_config_map(config_map: &Value) -> Result<Self, String> {
        let text = config_map["data"][CONFIG_KEY].as_str();
        Self::from_yaml(text.ok_or_else(|| format!("ConfigMap {CONFIG_MAP} has no key `{CONFIG_KEY}`"))?)
    }

    /// Whether there is a template of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.templates.contains_key(name) || BUILT_IN.contains(&name)
    }
}

/// A template, written as a mapping or as a text of YAML.
fn part(name: &str, written: Value) -> Result<Value, String> {
    let wrong = |what: String| format!("template `{name}`: {what}");
    let part = match written {
        Value::String(text) if text.contains("{{") => {
            return Err(wrong(
                "it is a program of Go's template language; write the part of a pod that it makes".to_owned(),
            ));
        }
        Value::String(text) => match documents(&text).into_iter().next() {
            None => Value::Null,
            Some(document) => document
                .as_ref()
                .map(Node::to_json)
                .map_err(|error| wrong(format!("line {}: {}", error.line, error.message)))?,
        },
        other => other,
    };
    let Value::Object(fields) = &part else { return Err(wrong("a pod's metadata and spec are expected".to_owned())) };
    match fields.keys().find(|field| !["metadata", "spec"].contains(&field.as_str())) {
        Some(field) => Err(wrong(format!("a pod has metadata and spec, and no `{field}`"))),
        None => Ok(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_administrator_writes_is_read_whole_or_refused() {
        let config = InjectorConfig::from_yaml(
            "policy: disabled\nneverInjectSelector: [{matchExpressions: [{key: job, operator: Exists}]}]\n\
             defaultTemplates: [sidecar, extra]\naliases: {both: [sidecar, extra]}\n\
             templates:\n  extra: |\n    spec:\n      priorityClassName: mesh\n",
        )
        .unwrap();
        assert!(!config.enabled);
        assert_eq!(config.templates["extra"]["spec"]["priorityClassName"], "mesh");
        assert!(config.never[0].matches(&BTreeMap::from([("job".to_owned(), "x".to_owned())])));
        assert!(!Selector::default().matches(&BTreeMap::new()), "nothing asked for selects nothing");
        for (text, complaint) in [
            ("templates: {a: 'spec: {{ .Values }}'}", "template `a`: it is a program of Go's template language"),
            ("templates: {a: 'kind: Pod'}", "template `a`: a pod has metadata and spec, and no `kind`"),
            ("templates: {a: [1]}", "template `a`: a pod's metadata and spec are expected"),
            ("defaultTemplates: [none]", "there is no template `none`"),
            ("aliases: {a: [none]}", "there is no template `none`"),
            ("policy: perhaps", "unknown variant `perhaps`"),
            ("alwaysInject: []", "unknown field `alwaysInject`"),
        ] {
            let error = InjectorConfig::from_yaml(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}

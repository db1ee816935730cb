//! What can be chosen about an installation: the settings, their usual values by profile, and `key=value` pairs over them. A key
//! that there is not is an error, with the key that was most likely meant.

use std::collections::BTreeMap;

use lateen_api::similar::did_you_mean;
use lateen_api::yaml::documents;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The settings of an installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// Where the images are: registry and path, without a name.
    pub hub: String,
    pub tag: String,
    /// `Always`, `IfNotPresent`, `Never`; empty: the cluster's own default.
    pub image_pull_policy: String,
    /// Secrets that images need; of injected pods, in their own namespaces.
    pub image_pull_secrets: Vec<String>,
    pub revision: String,
    /// Of the control plane, where it is not scaled.
    pub replicas: u32,
    pub autoscaling: Autoscaling,
    pub pod_disruption_budget: Switch,
    pub network_policy: Switch,
    pub resources: Resources,
    pub log_level: String,
    pub log_as_json: bool,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Value>,
    pub priority_class_name: String,
    /// Istio's `MeshConfig`.
    pub mesh_config: Map<String, Value>,
    pub ingress_gateway: IngressGateway,
}

/// Whether there is something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switch {
    pub enabled: bool,
}

/// How many replicas there are, by what they have to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Autoscaling {
    pub enabled: bool,
    pub min: u32,
    pub max: u32,
    /// Percent of the CPU asked for.
    pub cpu: u32,
}

/// Of the control plane's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}

/// A gateway at the edge of the mesh, which Istio's samples call `istio: ingressgateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressGateway {
    pub enabled: bool,
    pub replicas: u32,
    pub service_type: String,
}

/// Usual values for a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Production: several replicas, as many as it takes.
    Default,
    /// The least that works: one replica.
    Minimal,
    /// To look at: one replica, and a gateway.
    Demo,
}

impl Profile {
    pub const ALL: [(&'static str, Self); 3] =
        [("default", Self::Default), ("minimal", Self::Minimal), ("demo", Self::Demo)];

    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    fn values(self) -> Values {
        let is_small = self != Self::Default;
        let quantities = |cpu: &str, memory: &str| {
            BTreeMap::from([("cpu".to_owned(), cpu.to_owned()), ("memory".to_owned(), memory.to_owned())])
        };
        Values {
            hub: "lateen".to_owned(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            revision: super::DEFAULT_REVISION.to_owned(),
            replicas: if is_small { 1 } else { 2 },
            autoscaling: Autoscaling { enabled: !is_small, min: 2, max: 5, cpu: 80 },
            pod_disruption_budget: Switch { enabled: !is_small },
            network_policy: Switch { enabled: !is_small },
            resources: Resources {
                requests: if is_small { quantities("10m", "64Mi") } else { quantities("100m", "128Mi") },
                limits: BTreeMap::new(),
            },
            log_level: "warn,audit=info".to_owned(),
            log_as_json: false,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: String::new(),
            mesh_config: Map::new(),
            ingress_gateway: IngressGateway {
                enabled: self == Self::Demo,
                replicas: 1,
                service_type: "LoadBalancer".to_owned(),
            },
        }
    }
}

impl Values {
    /// A profile's values, with those of `key=value` pairs over them, the last one of each key.
    ///
    /// # Errors
    /// A key that there is not, or a value that does not fit, in a sentence each.
    pub fn new(profile: Profile, pairs: &[(String, String)]) -> Result<Self, Vec<String>> {
        let usual = json!(profile.values());
        let mut values = usual.clone();
        let mut wrong = Vec::new();
        for (key, text) in pairs {
            if let Err(why) = set(&mut values, &usual, key, text) {
                wrong.push(why);
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let values: Self = serde_json::from_value(values).map_err(|error| vec![error.to_string()])?;
        let wrong = values.mistakes();
        if wrong.is_empty() { Ok(values) } else { Err(wrong) }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !super::is_name(&self.revision) {
            wrong.push(format!(
                "revision: `{}` is no name: lower case letters, digits and dashes, at most 40",
                self.revision
            ));
        }
        if !["", "Always", "IfNotPresent", "Never"].contains(&self.image_pull_policy.as_str()) {
            wrong.push(format!(
                "imagePullPolicy: `{}` is none of Always, IfNotPresent and Never",
                self.image_pull_policy
            ));
        }
        if self.replicas == 0 {
            wrong.push("replicas: there must be one at least".to_owned());
        }
        let scaling = &self.autoscaling;
        if scaling.enabled && (scaling.min == 0 || scaling.max < scaling.min) {
            wrong.push(format!("autoscaling: from {} to {} replicas is no range", scaling.min, scaling.max));
        }
        let types = ["LoadBalancer", "NodePort", "ClusterIP"];
        if !types.contains(&self.ingress_gateway.service_type.as_str()) {
            wrong.push(format!(
                "ingressGateway.serviceType: `{}` is none of {}",
                self.ingress_gateway.service_type,
                types.join(", ")
            ));
        }
        let (_, found) = lateen_api::mesh_config::parse("meshConfig", &self.mesh_config_text());
        wrong.extend(
            found.iter().filter(|it| it.is_error()).map(|it| format!("meshConfig.{}: {}", it.field, it.message)),
        );
        wrong
    }

    /// What `meshConfig` says, as a file of it.
    pub(super) fn mesh_config_text(&self) -> String {
        if self.mesh_config.is_empty() { String::new() } else { Value::Object(self.mesh_config.clone()).to_string() }
    }

    /// An image of ours.
    pub(super) fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.hub.trim_end_matches('/'), self.tag)
    }
}

/// Sets what a key names; `usual` says what there is, and of what type.
fn set(values: &mut Value, usual: &Value, key: &str, text: &str) -> Result<(), String> {
    let (mut place, mut like) = (values, Some(usual));
    let mut at = String::new();
    for part in key.split('.') {
        let before = at.clone();
        at = if at.is_empty() { part.to_owned() } else { format!("{at}.{part}") };
        // What is below of a mapping of no fixed keys, such as `meshConfig`, is the mapping's own business.
        let is_open = like.is_none_or(|like| is_open(like, &before));
        let Some(fields) = place.as_object_mut() else {
            return Err(format!("`{before}` is one value, and has no `{part}`"));
        };
        like = like.and_then(|like| like.get(part));
        if like.is_none() && !is_open {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            let help = did_you_mean(part, &known)
                .map_or_else(|| format!("there is {}", known.join(", ")), |meant| format!("did you mean `{meant}`?"));
            return Err(format!("`{at}` is no setting; {help}"));
        }
        place = fields.entry(part).or_insert_with(|| json!({}));
    }
    *place = match like {
        Some(Value::String(_)) => json!(text),
        _ if is_text(key) => json!(text),
        Some(like) => {
            let value = parsed(text).filter(|value| std::mem::discriminant(value) == std::mem::discriminant(like));
            value.ok_or_else(|| format!("`{key}`: `{text}` is not {}", kind_of(like)))?
        }
        None => parsed(text).unwrap_or_else(|| json!(text)),
    };
    Ok(())
}

/// Mappings whose keys are anybody's.
const OPEN: [&str; 4] = ["meshConfig", "nodeSelector", "resources.requests", "resources.limits"];

fn is_open(like: &Value, at: &str) -> bool {
    like.is_object() && OPEN.contains(&at)
}

/// Whether what stands there is a text, whatever it looks like.
fn is_text(key: &str) -> bool {
    ["nodeSelector.", "resources."].iter().any(|prefix| key.starts_with(prefix))
}

fn parsed(text: &str) -> Option<Value> {
    documents(text).into_iter().next()?.ok().map(|node| node.to_json())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Array(_) => "a list, such as [a, b]",
        Value::Object(_) => "a mapping, such as {a: b}",
        Value::Null | Value::String(_) => "a text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Values, Vec<String>> {
        let pairs: Vec<_> = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Values::new(Profile::Default, &pairs)
    }

    #[test]
    fn settings_are_taken_by_their_type() {
        let values = with(&[
            ("tag", "1.20"),
            ("replicas", "3"),
            ("imagePullSecrets", "[a, b]"),
            ("meshConfig.outboundTrafficPolicy.mode", "REGISTRY_ONLY"),
            ("meshConfig.enableTracing", "true"),
            ("resources.limits.cpu", "2"),
            ("nodeSelector.disk", "ssd"),
            ("autoscaling.enabled", "false"),
        ])
        .unwrap();
        assert_eq!((values.tag.as_str(), values.replicas, values.autoscaling.enabled), ("1.20", 3, false));
        assert_eq!(values.image_pull_secrets, ["a", "b"]);
        assert_eq!(values.mesh_config["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
        assert_eq!(values.mesh_config["enableTracing"], true);
        assert_eq!((values.resources.limits["cpu"].as_str(), values.node_selector["disk"].as_str()), ("2", "ssd"));
    }

    #[test]
    fn what_is_no_setting_or_does_not_fit_is_an_error() {
        for (key, text, complaint) in [
            ("replica", "3", "`replica` is no setting; did you mean `replicas`?"),
            ("autoscaling.minimum", "3", "`autoscaling.minimum` is no setting; there is enabled, min, max, cpu"),
            ("tag.name", "3", "`tag` is one value, and has no `name`"),
            ("replicas", "many", "`replicas`: `many` is not a number"),
            ("replicas", "-1", "invalid value"),
            ("replicas", "0", "replicas: there must be one at least"),
            ("logAsJson", "1", "`logAsJson`: `1` is not true or false"),
            ("revision", "1.20", "revision: `1.20` is no name"),
            ("imagePullPolicy", "Sometimes", "imagePullPolicy: `Sometimes` is none of"),
            ("autoscaling.max", "1", "autoscaling: from 2 to 1 replicas is no range"),
            ("ingressGateway.serviceType", "External", "ingressGateway.serviceType: `External` is none of"),
            ("meshConfig.outboundTrafficPolicy.mode", "SOME", "meshConfig."),
        ] {
            let wrong = with(&[(key, text)]).unwrap_err().join("\n");
            assert!(wrong.contains(complaint), "{key}={text}: {wrong}");
        }
    }
}

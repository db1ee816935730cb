//! Environment variables of containers, with Kubernetes' references, and fields of the pod by path.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use lateen_api::ObjectMeta;
use lateen_api::kubernetes::container::EnvVar;
use lateen_api::kubernetes::{Container, PodSpec};

use crate::runtime::node::network::NODE_ADDRESS;

/// Variables of this machine that local programs need to find their files and speak the user's language.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];

/// What fields of a pod can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) metadata: &'a ObjectMeta,
    pub(crate) spec: &'a PodSpec,
    pub(crate) address: &'a str,
}

impl Fields<'_> {
    /// The value of a `fieldPath` (Kubernetes, "Downward API").
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let entry = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = entry("metadata.labels") {
            return Ok(self.metadata.label(key).unwrap_or_default().to_owned());
        }
        if let Some(key) = entry("metadata.annotations") {
            return Ok(self.metadata.annotation(key).unwrap_or_default().to_owned());
        }
        let lines = |map: &lateen_api::meta::StringMap| {
            map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
        };
        Ok(match path {
            "metadata.name" => self.metadata.name.clone(),
            "metadata.namespace" => self.metadata.namespace.clone(),
            "metadata.uid" => self.metadata.uid.clone(),
            "metadata.labels" => lines(&self.metadata.labels),
            "metadata.annotations" => lines(&self.metadata.annotations),
            "spec.nodeName" => "lateen".to_owned(),
            "spec.serviceAccountName" => self.spec.account().to_owned(),
            "status.podIP" | "status.podIPs" => self.address.to_owned(),
            "status.hostIP" | "status.hostIPs" => NODE_ADDRESS.to_string(),
            _ => bail!("`{path}` is not a field that can be referred to"),
        })
    }
}

/// All variables of a container. `defaults` are those of its image; the manifest's come over them.
pub(crate) fn build(
    container: &Container,
    fields: Fields<'_>,
    defaults: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    if !container.env_from.iter().all(is_optional) {
        bail!("`envFrom` is not supported on one machine: there are no ConfigMaps and Secrets; use `env`");
    }
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for name in INHERITED {
        if let Ok(value) = std::env::var(name) {
            variables.insert(name.to_owned(), value);
        }
    }
    variables.insert("HOSTNAME".to_owned(), fields.metadata.name.clone());
    variables.extend(defaults.clone());
    for variable in &container.env {
        if let Some(value) = value_of(variable, fields).with_context(|| format!("env {}", variable.name))? {
            let value = expand(&value, &variables);
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// An `envFrom` whose source may be missing adds nothing where there is none.
fn is_optional(source: &lateen_api::kubernetes::container::EnvFrom) -> bool {
    let optional = |reference: &Option<serde_json::Value>| {
        reference.as_ref().is_none_or(|reference| reference["optional"] == serde_json::Value::Bool(true))
    };
    optional(&source.config_map_ref) && optional(&source.secret_ref)
}

fn value_of(variable: &EnvVar, fields: Fields<'_>) -> anyhow::Result<Option<String>> {
    let Some(source) = &variable.value_from else { return Ok(Some(variable.value.clone().unwrap_or_default())) };
    if let Some(field) = &source.field_ref {
        return fields.get(&field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return Ok(Some(resource_limit(resource["resource"].as_str().unwrap_or_default())?));
    }
    for (reference, what) in [(&source.config_map_key_ref, "ConfigMaps"), (&source.secret_key_ref, "Secrets")] {
        if let Some(reference) = reference {
            if reference["optional"] == serde_json::Value::Bool(true) {
                return Ok(None);
            }
            bail!("there are no {what} on one machine; give the value itself");
        }
    }
    Ok(Some(String::new()))
}

/// Containers are not limited here, and then Kubernetes gives what the node has.
fn resource_limit(resource: &str) -> anyhow::Result<String> {
    match resource {
        "limits.cpu" | "requests.cpu" => Ok(std::thread::available_parallelism()?.to_string()),
        "limits.memory" | "requests.memory" => {
            let text = std::fs::read_to_string("/proc/meminfo")?;
            let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
            let kilobytes: u64 = kilobytes.context("/proc/meminfo has no MemTotal")?.trim().parse()?;
            Ok((kilobytes * 1024).to_string())
        }
        _ => bail!("`{resource}` is not a resource that can be referred to"),
    }
}

/// Kubernetes' `$(NAME)`; `$$` is a dollar sign, and what is not known stays as it is.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, wanted) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("a$", "a$"),
        ] {
            assert_eq!(expand(text, &variables), wanted, "{text}");
        }
    }

    #[test]
    fn later_variables_see_earlier_ones_and_fields_of_the_pod() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c",
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "BOTH", "value": "$(APP)/$(NAME)"},
                {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
            ],
        }))
        .unwrap();
        let mut metadata = ObjectMeta::named("default", "web-1");
        metadata.labels.insert("app".to_owned(), "web".to_owned());
        let spec = PodSpec::default();
        let fields = Fields { metadata: &metadata, spec: &spec, address: "10.244.0.1" };
        let defaults = BTreeMap::from([("APP".to_owned(), "image's".to_owned())]);
        let variables = build(&container, fields, &defaults).unwrap();
        assert_eq!(variables["BOTH"], "web/web-1");
        assert!(!variables.contains_key("MAYBE"));
        let mut wrong = container;
        wrong.env[0].value_from.as_mut().unwrap().field_ref.as_mut().unwrap().field_path = "spec.x".to_owned();
        let error = format!("{:#}", build(&wrong, fields, &defaults).unwrap_err());
        assert_eq!(error, "env NAME: `spec.x` is not a field that can be referred to");
    }
}

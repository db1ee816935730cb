//! Certificates and roots by the names that Istio has for those of any namespace: `kubernetes-gateway://namespace/secret`,
//! `configmap://namespace/name`.

use lateen_api::Resource;
use lateen_api::kubernetes::{ConfigMap, Secret};

use crate::inputs::Inputs;

const SECRET: &str = "kubernetes-gateway://";
const CONFIG_MAP: &str = "configmap://";
/// Behind the name of what holds roots.
const ROOTS: &str = "-cacert";

/// The proxy's own certificate.
pub(super) const BUILT_IN: &str = "builtin://";
/// Nothing that there is: who is to trust it trusts nobody.
pub(super) const NOBODY: &str = "invalid://";

/// What a credential's name says where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A Secret of the proxy's own namespace.
    Own(&'a str),
    Secret {
        namespace: &'a str,
        name: &'a str,
    },
    ConfigMap {
        namespace: &'a str,
        name: &'a str,
    },
    /// Nowhere.
    Nowhere,
}

impl<'a> Credential<'a> {
    /// Reads the name, without what says that roots are meant.
    pub fn parse(text: &'a str) -> Self {
        let place = |rest: &'a str| {
            let (namespace, name) = rest.split_once('/')?;
            Some((namespace, name.strip_suffix(ROOTS).unwrap_or(name)))
        };
        if let Some(rest) = text.strip_prefix(SECRET) {
            return place(rest).map_or(Self::Nowhere, |(namespace, name)| Self::Secret { namespace, name });
        }
        if let Some(rest) = text.strip_prefix(CONFIG_MAP) {
            return place(rest).map_or(Self::Nowhere, |(namespace, name)| Self::ConfigMap { namespace, name });
        }
        if text.contains("://") { Self::Nowhere } else { Self::Own(text) }
    }
}

pub(super) fn of_secret(namespace: &str, name: &str) -> String {
    format!("{SECRET}{namespace}/{name}")
}

pub(super) fn roots_of_secret(namespace: &str, name: &str) -> String {
    format!("{SECRET}{namespace}/{name}{ROOTS}")
}

pub(super) fn of_config_map(namespace: &str, name: &str) -> String {
    format!("{CONFIG_MAP}{namespace}/{name}")
}

pub(super) fn roots_of_config_map(namespace: &str, name: &str) -> String {
    format!("{CONFIG_MAP}{namespace}/{name}{ROOTS}")
}

pub(super) fn secret<'a>(inputs: &'a Inputs, namespace: &str, name: &str) -> Option<&'a Resource<Secret>> {
    let is_it = |secret: &&std::sync::Arc<Resource<Secret>>| secret.namespace() == namespace && secret.name() == name;
    inputs.secrets.iter().find(is_it).map(|secret| &**secret)
}

pub(super) fn config_map<'a>(inputs: &'a Inputs, namespace: &str, name: &str) -> Option<&'a ConfigMap> {
    let mut all = inputs.config_maps.iter();
    all.find(|map| map.namespace() == namespace && map.name() == name).map(|map| &map.spec)
}

/// What may hold roots.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held<'a> {
    Secret(&'a Secret),
    ConfigMap(&'a ConfigMap),
}

impl Held<'_> {
    fn value(self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Secret(secret) => secret.value(key),
            Self::ConfigMap(map) => map.data.get(key).map(|text| text.clone().into_bytes()),
        }
    }

    fn keys(self) -> Vec<String> {
        match self {
            Self::Secret(secret) => secret.keys(),
            Self::ConfigMap(map) => map.data.keys().cloned().collect(),
        }
    }

    /// Roots in PEM; else why there are none.
    pub(super) fn roots(self) -> Result<Vec<u8>, String> {
        const NAMES: [&str; 2] = ["cacert", "ca.crt"];
        let values: Vec<_> = NAMES.into_iter().filter_map(|name| Some((name, self.value(name)?))).collect();
        if let Some((_, value)) = values.iter().find(|(_, value)| !value.is_empty()) {
            return Ok(value.clone());
        }
        if let Some((name, _)) = values.first() {
            return Err(format!("found key \"{name}\", but it was empty"));
        }
        let [a, b] = NAMES;
        Err(format!("found secret, but didn't have expected keys {a} or {b}; found: {}", some(&self.keys())))
    }
}

/// Certificate chain and key in PEM; else why there are none.
pub(super) fn pair(secret: &Secret) -> Result<(Vec<u8>, Vec<u8>), String> {
    const NAMES: [[&str; 2]; 2] = [["cert", "key"], ["tls.crt", "tls.key"]];
    let values = |[chain, key]: [&str; 2]| Some((secret.value(chain)?, secret.value(key)?));
    for names in NAMES {
        if let Some((chain, key)) = values(names).filter(|(chain, key)| !chain.is_empty() && !key.is_empty()) {
            return Ok((chain, key));
        }
    }
    if let Some([chain, key]) = NAMES.into_iter().find(|names| values(*names).is_some()) {
        return Err(format!("found keys \"{chain}\" and \"{key}\", but they were empty"));
    }
    let [[a, b], [c, d]] = NAMES;
    let found = some(&secret.keys());
    Err(format!("found secret, but didn't have expected keys ({a} and {b}) or ({c} and {d}); found: {found}"))
}

fn some(keys: &[String]) -> String {
    match keys.len() {
        0..3 => keys.join(", "),
        many => format!("{}, and {} more...", keys[..3].join(", "), many - 3),
    }
}

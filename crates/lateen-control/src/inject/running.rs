//! How the proxy of a pod runs: its threads and its environment, from ProxyConfigs and the pod's annotation.

use std::collections::BTreeMap;

use lateen_api::kubernetes::Pod;
use lateen_api::networking::ProxyConfig;
use lateen_api::yaml::{Node, documents};
use lateen_api::{Diagnostic, Resource};
use serde_json::Value;

use super::problem;

/// Istio's `ProxyConfig` of the mesh, as YAML, for one pod; of it, `concurrency` and `proxyMetadata` are honoured.
const CONFIG: &str = "proxy.istio.io/config";

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// Worker threads; 0: one per processor.
    pub(super) concurrency: Option<u32>,
    pub(super) environment: BTreeMap<String, String>,
}

impl Running {
    /// For a pod: a ProxyConfig that selects it, else the pod's annotation, else the namespace's ProxyConfig, else the root
    /// namespace's. Of several in one place the oldest counts. Each setting is decided for itself, each variable, too.
    ///
    /// # Errors
    /// An annotation that cannot be read.
    pub(super) fn of(
        pod: &Resource<Pod>,
        configs: &[&Resource<ProxyConfig>],
        root_namespace: &str,
    ) -> Result<Self, Vec<Diagnostic>> {
        let selecting = |config: &&&Resource<ProxyConfig>| {
            let selector = config.spec.selector.as_ref().map(|selector| &selector.match_labels);
            config.namespace() == pod.namespace()
                && selector
                    .is_some_and(|wanted| wanted.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value)))
        };
        let oldest = |of: &dyn Fn(&&&Resource<ProxyConfig>) -> bool| {
            let found = configs.iter().filter(of).min_by_key(|config| (config.age, config.name()));
            found.map(|config| Self::from(&config.spec))
        };
        let whole =
            |namespace: &str| oldest(&|config| config.spec.selector.is_none() && config.namespace() == namespace);
        let from_pod = pod.metadata.annotation(CONFIG).map(|text| Self::read(pod, text)).transpose()?;
        let by_precedence = [oldest(&selecting), from_pod, whole(pod.namespace()), whole(root_namespace)];
        Ok(by_precedence.into_iter().flatten().fold(Self::default(), Self::or))
    }

    /// Its own word, the other's where it has none.
    fn or(mut self, other: Self) -> Self {
        self.concurrency = self.concurrency.or(other.concurrency);
        for (name, value) in other.environment {
            self.environment.entry(name).or_insert(value);
        }
        self
    }

    fn read(pod: &Resource<Pod>, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let wrong = |message: String| vec![problem(pod, CONFIG, message)];
        let Some(document) = documents(text).into_iter().next() else { return Ok(Self::default()) };
        let node = document.map_err(|error| wrong(format!("line {}: {}", error.line, error.message)))?;
        let concurrency = node.get("concurrency").map(Node::to_json);
        let concurrency = concurrency.map(|value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| wrong(format!("`concurrency: {value}` is no number of threads")))
        });
        let mut environment = BTreeMap::new();
        let variables = node.get("proxyMetadata").map(Node::to_json);
        match variables {
            None | Some(Value::Null) => {}
            Some(Value::Object(variables)) => {
                for (name, value) in variables {
                    let text = match value {
                        Value::String(text) => text,
                        Value::Bool(_) | Value::Number(_) => value.to_string(),
                        _ => return Err(wrong(format!("`proxyMetadata.{name}` is no text"))),
                    };
                    environment.insert(name, text);
                }
            }
            Some(_) => return Err(wrong("`proxyMetadata` is no map of names to texts".to_owned())),
        }
        Ok(Self { concurrency: concurrency.transpose()?, environment })
    }
}

impl From<&ProxyConfig> for Running {
    fn from(config: &ProxyConfig) -> Self {
        Self {
            // Validation refuses what is negative.
            concurrency: config.concurrency.and_then(|threads| u32::try_from(threads).ok()),
            environment: config.environment_variables.clone().into_iter().collect(),
        }
    }
}

//! How the proxy of a pod runs, from ProxyConfigs and the pod's annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_api::networking::ProxyConfig;
use lateen_api::yaml::{Node, documents};
use lateen_api::{Diagnostic, Resource};
use serde_json::Value;

use super::{Settings, SidecarForm, Subject};

/// Istio's `ProxyConfig` of the mesh, as YAML, for one pod.
const CONFIG: &str = "proxy.istio.io/config";
const MODE: &str = "sidecar.istio.io/interceptionMode";
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
const STATUS_PORT: &str = "status.sidecar.istio.io/port";
const DISCOVERY: &str = "sidecar.istio.io/discoveryAddress";
/// Where merged metrics and the probes of apps are, unless told otherwise.
const USUAL_STATUS_PORT: u16 = 15020;

/// How traffic gets to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interception {
    Redirect,
    /// Not at all: the app sends it there itself.
    None,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    /// Worker threads; 0: one per processor.
    pub(super) concurrency: Option<u32>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) form: SidecarForm,
    pub(super) interception: Interception,
    /// None where the pod wants nobody to ask (`0`).
    pub(super) status_port: Option<u16>,
    pub(super) holds_application: bool,
    /// How long connections may take to end.
    pub(super) drain: Option<Duration>,
    /// `host:port`.
    pub(super) discovery: Option<String>,
    rewrite_probes: bool,
}

/// What one place says; what it does not say, another may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    concurrency: Option<u32>,
    environment: BTreeMap<String, String>,
    interception: Option<String>,
    status_port: Option<u16>,
    holds_application: Option<bool>,
    drain: Option<Duration>,
    discovery: Option<String>,
}

impl Running {
    /// For a pod: a ProxyConfig that selects it, else the pod's annotation, else the namespace's ProxyConfig, else the root
    /// namespace's. Of several in one place the oldest counts. Each setting is decided for itself, each variable, too.
    ///
    /// # Errors
    /// An annotation that cannot be read.
    pub(super) fn of(
        subject: &Subject<'_>,
        configs: &[&Resource<ProxyConfig>],
        settings: &Settings,
    ) -> Result<Self, Vec<Diagnostic>> {
        let selecting = |config: &&&Resource<ProxyConfig>| {
            let selector = config.spec.selector.as_ref().map(|selector| &selector.match_labels);
            config.namespace() == subject.namespace
                && selector
                    .is_some_and(|wanted| wanted.iter().all(|(key, value)| subject.labels.get(key) == Some(value)))
        };
        let oldest = |of: &dyn Fn(&&&Resource<ProxyConfig>) -> bool| {
            let found = configs.iter().filter(of).min_by_key(|config| (config.age, config.name()));
            found.map(|config| Said::from(&config.spec))
        };
        let whole =
            |namespace: &str| oldest(&|config| config.spec.selector.is_none() && config.namespace() == namespace);
        let from_pod = subject.annotation(CONFIG).map(|text| Said::read(subject, text)).transpose()?;
        let by_precedence = [oldest(&selecting), from_pod, whole(subject.namespace), whole(&settings.root_namespace)];
        Self::decide(subject, by_precedence.into_iter().flatten().fold(Said::default(), Said::or), settings)
    }

    /// With the annotations of single settings, which have the last word.
    fn decide(subject: &Subject<'_>, said: Said, settings: &Settings) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut truth = |annotation: &str, usual: bool| match subject.annotation(annotation).map(truth) {
            None => usual,
            Some(Ok(value)) => value,
            Some(Err(message)) => {
                problems.push(subject.wrong(annotation, message));
                usual
            }
        };
        let is_native = truth(NATIVE, settings.form == SidecarForm::Native);
        let rewrite_probes = truth(REWRITE, settings.rewrite_probes);
        let status_port = match subject.annotation(STATUS_PORT).map(|text| (text, text.trim().parse::<u16>())) {
            None => said.status_port.unwrap_or(USUAL_STATUS_PORT),
            Some((_, Ok(port))) => port,
            Some((text, Err(_))) => {
                problems.push(subject.wrong(STATUS_PORT, format!("`{text}` is not a port (0 to 65535)")));
                0
            }
        };
        let (source, mode) = match (subject.annotation(MODE), &said.interception) {
            (Some(mode), _) => (MODE, mode),
            (None, Some(mode)) => (CONFIG, mode.as_str()),
            (None, None) => (MODE, "REDIRECT"),
        };
        let interception = match mode {
            "NONE" => Interception::None,
            "REDIRECT" => Interception::Redirect,
            _ => {
                problems.push(subject.wrong(
                    source,
                    match mode {
                        "TPROXY" => "TPROXY is not supported: use REDIRECT".to_owned(),
                        other => format!("`{other}` is not one of REDIRECT, TPROXY and NONE"),
                    },
                ));
                Interception::None
            }
        };
        let discovery = match subject.annotation(DISCOVERY) {
            None => said.discovery,
            Some(address) if is_address(address) => Some(address.to_owned()),
            Some(address) => {
                problems.push(subject.wrong(DISCOVERY, format!("`{address}` is not of the form host:port")));
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            concurrency: said.concurrency,
            environment: said.environment,
            form: if is_native { SidecarForm::Native } else { SidecarForm::Classic },
            interception,
            status_port: (status_port != 0).then_some(status_port),
            holds_application: said.holds_application.unwrap_or_default(),
            drain: said.drain,
            discovery,
            rewrite_probes,
        })
    }

    /// Not where nobody answers.
    pub(super) fn rewrites_probes(&self) -> bool {
        self.rewrite_probes && self.status_port.is_some()
    }
}

/// What Go's `strconv.ParseBool` takes.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

/// `host:port`, of characters that names and addresses have.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        !host.is_empty() && host.bytes().all(legal) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl Said {
    /// Its own word, the other's where it has none.
    fn or(mut self, other: Self) -> Self {
        self.concurrency = self.concurrency.or(other.concurrency);
        self.interception = self.interception.or(other.interception);
        self.status_port = self.status_port.or(other.status_port);
        self.holds_application = self.holds_application.or(other.holds_application);
        self.drain = self.drain.or(other.drain);
        self.discovery = self.discovery.or(other.discovery);
        for (name, value) in other.environment {
            self.environment.entry(name).or_insert(value);
        }
        self
    }

    fn read(subject: &Subject<'_>, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let wrong = |message: String| vec![subject.wrong(CONFIG, message)];
        let Some(document) = documents(text).into_iter().next() else { return Ok(Self::default()) };
        let node = document.map_err(|error| wrong(format!("line {}: {}", error.line, error.message)))?;
        let field = |name: &str| node.get(name).map(Node::to_json).filter(|value| !value.is_null());
        let mut said = Self { environment: environment(field("proxyMetadata")).map_err(wrong)?, ..Self::default() };
        if let Some(value) = field("concurrency") {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            said.concurrency =
                Some(number.ok_or_else(|| wrong(format!("`concurrency: {value}` is no number of threads")))?);
        }
        if let Some(value) = field("holdApplicationUntilProxyStarts") {
            let truth = value.as_bool();
            said.holds_application = Some(truth.ok_or_else(|| {
                wrong(format!("`holdApplicationUntilProxyStarts: {value}` is neither true nor false"))
            })?);
        }
        if let Some(value) = field("interceptionMode") {
            let mode = value.as_str();
            said.interception =
                Some(mode.ok_or_else(|| wrong(format!("`interceptionMode: {value}` is no text")))?.to_owned());
        }
        if let Some(value) = field("statusPort") {
            let port = value.as_u64().and_then(|number| u16::try_from(number).ok());
            said.status_port = Some(port.ok_or_else(|| wrong(format!("`statusPort: {value}` is no port")))?);
        }
        if let Some(value) = field("terminationDrainDuration") {
            let time = value.as_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
            let time = time.and_then(|time| Duration::try_from(time).ok());
            said.drain = Some(time.ok_or_else(|| wrong(format!("`terminationDrainDuration: {value}` is no time")))?);
        }
        if let Some(value) = field("discoveryAddress") {
            let address = value.as_str().filter(|address| is_address(address));
            let complaint = || wrong(format!("`discoveryAddress: {value}` is not of the form host:port"));
            said.discovery = Some(address.ok_or_else(complaint)?.to_owned());
        }
        Ok(said)
    }
}

fn environment(variables: Option<Value>) -> Result<BTreeMap<String, String>, String> {
    let Some(variables) = variables else { return Ok(BTreeMap::new()) };
    let Value::Object(variables) = variables else {
        return Err("`proxyMetadata` is no map of names to texts".to_owned());
    };
    let mut out = BTreeMap::new();
    for (name, value) in variables {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(format!("`proxyMetadata.{name}` is no text")),
        };
        out.insert(name, text);
    }
    Ok(out)
}

impl From<&ProxyConfig> for Said {
    fn from(config: &ProxyConfig) -> Self {
        Self {
            // Validation refuses what is negative.
            concurrency: config.concurrency.and_then(|threads| u32::try_from(threads).ok()),
            environment: config.environment_variables.clone().into_iter().collect(),
            ..Self::default()
        }
    }
}

//! Which templates a pod asks for, and what each makes of it: a part of a pod that is laid over the pod.

use lateen_api::Diagnostic;
use serde_json::{Map, Value, json};

use super::running::Running;
use super::{InjectorConfig, Settings, SidecarForm, Subject, proxy, redirection, volumes};

const TEMPLATES: &str = "inject.istio.io/templates";
const TLS_MODE: &str = "security.istio.io/tlsMode";
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// A label's value is never longer.
const MAX_LABEL: usize = 63;

/// What a template makes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Template {
    /// A proxy to which the pod's traffic is redirected.
    Sidecar,
    /// The proxy is the workload: nothing is redirected to it.
    Gateway,
    /// An administrator's.
    Custom(Value),
}

/// Those that the pod asks for, else the usual ones; each once.
pub(super) fn chosen(subject: &Subject<'_>, config: &InjectorConfig) -> Result<Vec<Template>, Vec<Diagnostic>> {
    let asked = subject.annotation(TEMPLATES).unwrap_or_default();
    let mut names: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        names = config.default_templates.iter().map(String::as_str).collect();
    }
    let mut chosen: Vec<&str> = Vec::new();
    for name in names {
        let meant = config.aliases.get(name).map_or_else(|| vec![name], |all| all.iter().map(String::as_str).collect());
        for name in meant {
            if !config.has(name) {
                let mut known: Vec<&str> = config.templates.keys().map(String::as_str).collect();
                known.extend(super::config::BUILT_IN.iter().filter(|name| !config.templates.contains_key(**name)));
                let message = format!("there is no template `{name}`: there are {}", known.join(", "));
                return Err(vec![subject.wrong(TEMPLATES, message)]);
            }
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
    }
    let template = |name: &str| match (config.templates.get(name), name) {
        (Some(part), _) => Template::Custom(part.clone()),
        (None, "gateway") => Template::Gateway,
        (None, _) => Template::Sidecar,
    };
    Ok(chosen.into_iter().map(template).collect())
}

impl Template {
    /// The part of a pod that it adds.
    ///
    /// # Errors
    /// Annotations that cannot be honoured.
    pub(super) fn part(
        &self,
        subject: &Subject<'_>,
        running: &Running,
        settings: &Settings,
    ) -> Result<Value, Vec<Diagnostic>> {
        match self {
            Self::Custom(part) => Ok(part.clone()),
            Self::Gateway => {
                let mut spec = json!({
                    "containers": [proxy::gateway(subject, running, settings)?],
                    "volumes": volumes::ours(subject)?,
                    // Listeners of gateways are on low ports, and their proxy is nobody's root.
                    "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                });
                pull_secrets(&mut spec, settings);
                Ok(json!({"metadata": {"labels": labels(subject, None)}, "spec": spec}))
            }
            Self::Sidecar => {
                let proxy = proxy::sidecar(subject, running, settings)?;
                let init = redirection::container(subject, running, settings)?;
                let mut spec = json!({"volumes": volumes::ours(subject)?});
                let mut init: Vec<Value> = init.into_iter().collect();
                match running.form {
                    SidecarForm::Native => init.push(proxy),
                    SidecarForm::Classic => spec["containers"] = json!([proxy]),
                }
                if !init.is_empty() {
                    spec["initContainers"] = Value::Array(init);
                }
                pull_secrets(&mut spec, settings);
                Ok(json!({"metadata": {"labels": labels(subject, Some("istio"))}, "spec": spec}))
            }
        }
    }
}

fn pull_secrets(spec: &mut Value, settings: &Settings) {
    if !settings.image_pull_secrets.is_empty() {
        let named = settings.image_pull_secrets.iter().map(|name| json!({"name": name}));
        spec["imagePullSecrets"] = named.collect();
    }
}

/// Labels that a template adds: those that the pod does not have.
pub(super) fn labels(subject: &Subject<'_>, tls_mode: Option<&str>) -> Map<String, Value> {
    let (name, revision) = (canonical_name(subject), canonical_revision(subject));
    let all = [(TLS_MODE, tls_mode), (CANONICAL_NAME, Some(name.as_str())), (CANONICAL_REVISION, Some(revision))];
    all.into_iter()
        .filter(|(key, _)| subject.label(key).is_none())
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
        .collect()
}

/// The usual labels, else the workload's name, cut to a label's length.
fn canonical_name(subject: &Subject<'_>) -> String {
    let labelled = ["app.kubernetes.io/name", "app"].iter().find_map(|key| subject.label(key));
    let name = labelled.map_or_else(|| subject.workload().name, str::to_owned);
    name.chars().take(MAX_LABEL).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
}

fn canonical_revision<'a>(subject: &'a Subject<'_>) -> &'a str {
    let labelled = ["app.kubernetes.io/version", "version"].iter().find_map(|key| subject.label(key));
    labelled.unwrap_or("latest")
}

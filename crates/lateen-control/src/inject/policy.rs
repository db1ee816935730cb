//! Who is injected (Istio: `mutatingwebhook.yaml` for whom the webhook is asked about, `injectRequired` for the answer).

use std::collections::BTreeMap;
use std::fmt;

use super::{Settings, Subject};

pub(super) const NAMESPACE_LABEL: &str = "istio-injection";
const REVISION_LABEL: &str = "istio.io/rev";
const INJECT: &str = "sidecar.istio.io/inject";
/// Never, whatever their labels.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Inject,
    Leave(NotInjected),
}

/// Why a pod gets no proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotInjected {
    HostNetwork,
    SystemNamespace,
    NamespaceDisabled,
    /// Neither the namespace nor the pod asks for it.
    NotAsked,
    /// The pod's label or annotation says no.
    PodDisabled,
    /// The injector's own configuration says no.
    PolicyDisabled,
    /// Another control plane's.
    OtherRevision(String),
    Already,
}

impl fmt::Display for NotInjected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("the pod uses the network of its node"),
            Self::SystemNamespace => f.write_str("the namespace belongs to the cluster itself"),
            Self::NamespaceDisabled => write!(f, "the namespace is labelled {NAMESPACE_LABEL}=disabled"),
            Self::NotAsked => write!(
                f,
                "neither the namespace ({NAMESPACE_LABEL}=enabled or {REVISION_LABEL}) nor the pod ({INJECT}: \"true\") asks for it"
            ),
            Self::PodDisabled => write!(f, "the pod's {INJECT} does not say true"),
            Self::PolicyDisabled => f.write_str("the injector's configuration leaves it out"),
            Self::OtherRevision(revision) => write!(f, "it is for the control plane of revision {revision}"),
            Self::Already => f.write_str("it has been injected already"),
        }
    }
}

/// Decides about a pod.
pub(super) fn verdict(
    subject: &Subject<'_>,
    namespace_labels: &BTreeMap<String, String>,
    settings: &Settings,
) -> Verdict {
    match refusal(subject, namespace_labels, settings) {
        None => Verdict::Inject,
        Some(refused) => Verdict::Leave(refused),
    }
}

fn refusal(
    subject: &Subject<'_>,
    namespace_labels: &BTreeMap<String, String>,
    settings: &Settings,
) -> Option<NotInjected> {
    if subject.pod["spec"]["hostNetwork"] == true {
        return Some(NotInjected::HostNetwork);
    }
    if SYSTEM.contains(&subject.namespace) {
        return Some(NotInjected::SystemNamespace);
    }
    let other = |wanted: &str| (wanted != settings.revision).then(|| NotInjected::OtherRevision(wanted.to_owned()));
    let label = subject.label(INJECT);
    let namespace_revision = namespace_labels.get(REVISION_LABEL).map(String::as_str);
    match namespace_labels.get(NAMESPACE_LABEL).map(String::as_str) {
        // The label of the namespace beats its revision.
        Some("enabled") => {}
        Some(_) => return Some(NotInjected::NamespaceDisabled),
        None => match (namespace_revision, subject.label(REVISION_LABEL)) {
            (Some(wanted), _) | (None, Some(wanted)) => {
                if let Some(refused) = other(wanted) {
                    return Some(refused);
                }
            }
            (None, None) if label == Some("true") => {}
            (None, None) => return Some(NotInjected::NotAsked),
        },
    }
    // The label beats the annotation of the same name, which is its predecessor.
    let config = &settings.config;
    match label.or_else(|| subject.annotation(INJECT)) {
        Some(value) if ["y", "yes", "true", "on"].contains(&value.to_lowercase().as_str()) => None,
        Some(value) if !value.is_empty() => Some(NotInjected::PodDisabled),
        // Where the pod has no word of its own, never beats always, and both beat what is usual.
        _ if config.never.iter().any(|selector| selector.matches(&subject.labels)) => Some(NotInjected::PolicyDisabled),
        _ if config.always.iter().any(|selector| selector.matches(&subject.labels)) => None,
        _ => (!config.enabled).then_some(NotInjected::PolicyDisabled),
    }
}

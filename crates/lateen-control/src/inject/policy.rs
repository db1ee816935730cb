//! Who is injected (Istio: `mutatingwebhook.yaml` for whom the webhook is asked about, `injectRequired` for the answer).

use std::collections::BTreeMap;
use std::fmt;

use lateen_api::Resource;
use lateen_api::kubernetes::Pod;

const NAMESPACE_LABEL: &str = "istio-injection";
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
            Self::OtherRevision(revision) => write!(f, "it is for the control plane of revision {revision}"),
            Self::Already => f.write_str("it has been injected already"),
        }
    }
}

/// Decides about a pod.
pub fn verdict(pod: &Resource<Pod>, namespace_labels: &BTreeMap<String, String>, revision: &str) -> Verdict {
    match refusal(pod, namespace_labels, revision) {
        None => Verdict::Inject,
        Some(refused) => Verdict::Leave(refused),
    }
}

fn refusal(pod: &Resource<Pod>, namespace_labels: &BTreeMap<String, String>, revision: &str) -> Option<NotInjected> {
    if pod.spec.spec.host_network {
        return Some(NotInjected::HostNetwork);
    }
    if SYSTEM.contains(&pod.namespace()) {
        return Some(NotInjected::SystemNamespace);
    }
    let other = |wanted: &str| (wanted != revision).then(|| NotInjected::OtherRevision(wanted.to_owned()));
    let label = pod.metadata.label(INJECT);
    let namespace_revision = namespace_labels.get(REVISION_LABEL).map(String::as_str);
    match namespace_labels.get(NAMESPACE_LABEL).map(String::as_str) {
        // The label of the namespace beats its revision.
        Some("enabled") => {}
        Some(_) => return Some(NotInjected::NamespaceDisabled),
        None => match (namespace_revision, pod.metadata.label(REVISION_LABEL)) {
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
    match label.or_else(|| pod.metadata.annotation(INJECT)) {
        None | Some("") => None,
        Some(value) if ["y", "yes", "true", "on"].contains(&value.to_lowercase().as_str()) => None,
        Some(_) => Some(NotInjected::PodDisabled),
    }
}

//! Namespaces that a listener lets routes in from, and a Gateway listeners.

use lateen_api::gateway_api::gateway::{AllowedListeners, AllowedRoutes, NamespacesFrom};
use lateen_api::meta::StringMap;
use lateen_api::selector::LabelSelector;

use crate::inputs::Inputs;

/// The label that every namespace of a cluster has with its own name.
const NAME: &str = "kubernetes.io/metadata.name";

fn labels_of(inputs: &Inputs, namespace: &str) -> Option<StringMap> {
    let found = inputs.namespaces.iter().find(|known| known.name() == namespace)?;
    let mut labels = found.metadata.labels.clone();
    labels.insert(NAME.to_owned(), namespace.to_owned());
    Some(labels)
}

/// The names of those that a selector fits.
fn selected(inputs: &Inputs, selector: &LabelSelector) -> Vec<String> {
    let fits = |name: &str| labels_of(inputs, name).is_some_and(|labels| selector.matches(&labels));
    let names = inputs.namespaces.iter().map(|namespace| namespace.name()).filter(|name| fits(name));
    let mut out: Vec<String> = names.map(str::to_owned).collect();
    out.sort();
    out
}

/// A listener's host with those who may bind to it, as a server's hosts in Istio's `Gateway` say it: `namespace/host`, `*/host`
/// for all; `~/host` is for nobody.
pub(super) fn hosts(inputs: &Inputs, own: &str, host: &str, allowed: Option<&AllowedRoutes>) -> Vec<String> {
    let wanted = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let names = match wanted.and_then(|wanted| wanted.from) {
        None | Some(NamespacesFrom::Same) => vec![own.to_owned()],
        Some(NamespacesFrom::All) => vec!["*".to_owned()],
        Some(NamespacesFrom::None) => Vec::new(),
        Some(NamespacesFrom::Selector) => match wanted.and_then(|wanted| wanted.selector.as_ref()) {
            Some(selector) => selected(inputs, selector),
            // Validation refuses it.
            None => Vec::new(),
        },
    };
    if names.is_empty() {
        return vec![format!("~/{host}")];
    }
    names.into_iter().map(|name| format!("{name}/{host}")).collect()
}

/// Whether a Gateway of namespace `own` lets in listeners of another one.
pub(super) fn lets_listeners_in(
    inputs: &Inputs,
    own: &str,
    allowed: Option<&AllowedListeners>,
    namespace: &str,
) -> bool {
    let Some(wanted) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else { return false };
    match wanted.from {
        Some(NamespacesFrom::All) => true,
        Some(NamespacesFrom::Same) => own == namespace,
        Some(NamespacesFrom::None) => false,
        Some(NamespacesFrom::Selector) | None => wanted
            .selector
            .as_ref()
            .zip(labels_of(inputs, namespace))
            .is_some_and(|(selector, labels)| selector.matches(&labels)),
    }
}

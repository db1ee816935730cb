//! Injection webhooks of which two see the same pod, and those that lead to no service.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::document::{Document, Labels, items, meets, text, texts};
use crate::report::Report;
use crate::world::{ADMISSION, CORE, World};

const REVISION: &str = "istio.io/rev";

/// A webhook and where it stands.
struct Webhook<'a> {
    document: &'a Document,
    index: usize,
    value: &'a Value,
}

impl Webhook<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.document.name, text(&self.value["name"]))
    }
}

pub(super) fn check(world: &World, report: &mut Report) {
    let mut webhooks: Vec<Webhook<'_>> = Vec::new();
    let mut revisions: BTreeSet<String> = BTreeSet::new();
    for document in world.each(ADMISSION, "MutatingWebhookConfiguration") {
        let own = items(&document.json["webhooks"]);
        let named = revisions_of(document, own);
        // The default revision's stands beside its tag.
        let is_default = document.labels.get(REVISION).is_some_and(|revision| revision == "default");
        let is_default = is_default && !document.labels.contains_key("istio.io/tag");
        let is_istio = own.iter().any(|webhook| text(&webhook["name"]).ends_with("istio.io"));
        if is_default || (named.is_empty() && !is_istio) {
            continue;
        }
        webhooks.extend(own.iter().enumerate().map(|(index, value)| Webhook { document, index, value }));
        revisions.extend(named);
    }
    overlaps(&webhooks, &revisions, report);
    for webhook in &webhooks {
        let service = &webhook.value["clientConfig"]["service"];
        let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
        if service.is_object() && world.find(CORE, "Service", namespace, name).is_none() {
            let field = format!("webhooks[{}].clientConfig.service", webhook.index);
            let message =
                format!("webhook {} leads to Service {namespace}/{name}, which does not exist", webhook.name());
            report.add(webhook.document, "IST0139", &field, message);
        }
    }
}

/// The revisions that a configuration speaks of.
fn revisions_of(document: &Document, webhooks: &[Value]) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = document.labels.get(REVISION).cloned().into_iter().collect();
    for webhook in webhooks {
        for selector in [&webhook["namespaceSelector"], &webhook["objectSelector"]] {
            found.extend(selector["matchLabels"][REVISION].as_str().map(str::to_owned));
            let expressions = items(&selector["matchExpressions"]).iter();
            let of_revision = expressions.filter(|expression| text(&expression["key"]) == REVISION);
            found.extend(of_revision.flat_map(|expression| texts(&expression["values"])).map(str::to_owned));
        }
    }
    found
}

/// Labels as they can be: each value of the label that asks for injection, with and without each revision.
fn combinations(label: &str, values: [&str; 2], revisions: &BTreeSet<String>) -> Vec<Labels> {
    let mut out = Vec::new();
    for revision in std::iter::once(None).chain(revisions.iter().map(Some)) {
        for value in std::iter::once(None).chain(values.into_iter().map(Some)) {
            let value = value.map(|value| (label.to_owned(), value.to_owned()));
            let revision = revision.map(|revision| (REVISION.to_owned(), revision.clone()));
            out.push(value.into_iter().chain(revision).collect());
        }
    }
    out
}

fn overlaps(webhooks: &[Webhook<'_>], revisions: &BTreeSet<String>, report: &mut Report) {
    let mut told: BTreeSet<(usize, Vec<usize>)> = BTreeSet::new();
    for namespace in combinations("istio-injection", ["enabled", "disabled"], revisions) {
        for pod in combinations("sidecar.istio.io/inject", ["true", "false"], revisions) {
            let sees = |webhook: &Webhook<'_>| {
                meets(&webhook.value["namespaceSelector"], &namespace) && meets(&webhook.value["objectSelector"], &pod)
            };
            let seen: Vec<usize> = (0..webhooks.len()).filter(|index| sees(&webhooks[*index])).collect();
            for one in seen.iter().filter(|_| seen.len() > 1) {
                let others: Vec<usize> = seen.iter().copied().filter(|other| other != one).collect();
                if told.insert((*one, others.clone())) {
                    overlap(webhooks, *one, &others, (&namespace, &pod), report);
                }
            }
        }
    }
}

fn overlap(
    webhooks: &[Webhook<'_>],
    one: usize,
    others: &[usize],
    (namespace, pod): (&Labels, &Labels),
    report: &mut Report,
) {
    let shown = |labels: &Labels| match crate::document::shown(labels) {
        text if text.is_empty() => "no label".to_owned(),
        text => text,
    };
    let names: Vec<String> = others.iter().map(|other| webhooks[*other].name()).collect();
    let message = format!(
        "webhook {} and {} both see pods with {} in namespaces with {}: those are injected twice",
        webhooks[one].name(),
        names.join(", "),
        shown(pod),
        shown(namespace)
    );
    report.add(webhooks[one].document, "IST0139", &format!("webhooks[{}]", webhooks[one].index), message);
}

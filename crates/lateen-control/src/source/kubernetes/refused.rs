//! Events on objects that are not taken, so that `kubectl describe` says why.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use lateen_api::{Diagnostic, Kind};
use tokio::sync::mpsc;

/// So many wait to be told; more are told in the log only.
const QUEUE: usize = 256;
/// An event's note is no longer (`events.k8s.io`).
const MAX_NOTE: usize = 1024;

/// Where refusals are told. Cloning shares.
#[derive(Clone)]
pub(super) struct Refusals {
    queue: mpsc::Sender<(ObjectReference, String)>,
}

impl Refusals {
    /// And what tells them to the API server, until all that tell are gone.
    pub(super) fn new(client: Client) -> (Self, impl Future<Output = ()>) {
        let (queue, told) = mpsc::channel(QUEUE);
        (Self { queue }, publish(client, told))
    }

    /// Tells what is wrong with an object; never waits.
    pub(super) fn tell(&self, kind: Kind, object: &DynamicObject, found: &[Diagnostic]) {
        let metadata = &object.metadata;
        let reference = ObjectReference {
            api_version: object.types.as_ref().map(|types| types.api_version.clone()),
            kind: Some(kind.name().to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectReference::default()
        };
        if self.queue.try_send((reference, note(found))).is_err() {
            tracing::debug!(%kind, name = metadata.name, "too many refusals at once: no event for this one");
        }
    }
}

/// As much of it as an event takes.
fn note(found: &[Diagnostic]) -> String {
    let told = found.iter().map(|it| format!("{}: {}", it.field, it.message)).collect::<Vec<_>>().join("; ");
    let whole = format!("It is not in force, and its last good version is, if there is one: {told}");
    let end = (0..=MAX_NOTE.min(whole.len())).rev().find(|end| whole.is_char_boundary(*end)).unwrap_or_default();
    whole[..end].to_owned()
}

async fn publish(client: Client, mut told: mpsc::Receiver<(ObjectReference, String)>) {
    let instance = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let recorder = Recorder::new(client, Reporter { controller: "lateend".to_owned(), instance });
    while let Some((reference, note)) = told.recv().await {
        let event = Event {
            type_: EventType::Warning,
            reason: "Rejected".to_owned(),
            note: Some(note),
            action: "Read".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::debug!(%error, object = reference.name, "the event cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_as_long_as_it_may_be() {
        let mut found = lateen_api::parse_documents("a", "kind: {", "default").diagnostics.remove(0);
        found.message = "é".repeat(MAX_NOTE);
        let note = note(&[found]);
        assert!(note.len() <= MAX_NOTE && note.len() > MAX_NOTE - 3 && note.ends_with('é'));
    }
}

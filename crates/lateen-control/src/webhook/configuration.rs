//! What the webhook needs of the API server: that its configuration there names the authority of our certificate (`caBundle`), and
//! the injector's own configuration, which an administrator keeps in a ConfigMap. Both are looked at whenever they change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, watch_object, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::inject::config::{CONFIG_KEY, CONFIG_MAP};
use crate::inject::{InjectorConfig, Settings};
use crate::manifest::REVISION_LABEL;

/// After a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Under which our changes are known.
const MANAGER: &str = "lateend";

/// Keeps `caBundle` of the webhook configurations of a revision, its tags among them, what our authority's roots are, for as long as
/// we serve.
pub(crate) async fn keep_bundles(client: Client, revision: String, authority: Authority, stop: CancellationToken) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let ours = watcher::Config::default().labels(&format!("{REVISION_LABEL}={revision}"));
    let mut events = Box::pin(watcher(api.clone(), ours));
    let mut changes = authority.watch();
    let mut known: BTreeMap<String, MutatingWebhookConfiguration> = BTreeMap::new();
    let mut again = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => note(&mut known, event),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the webhooks' configurations cannot be watched");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                None => return,
            },
            changed = changes.changed() => if changed.is_err() { return },
            // Whoever it was that was in the way, they are looked at again.
            () = tokio::time::sleep(PAUSE), if again => {}
            () = stop.cancelled() => return,
        }
        let bundle = authority.current().roots().to_pem();
        again = false;
        for (name, configuration) in &mut known {
            let Some(patch) = bundle_patch(configuration, &bundle) else { continue };
            let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match api.patch(name, &parameters, &Patch::Strategic(patch)).await {
                Ok(patched) => {
                    tracing::info!(name, "the webhook's configuration has our authority's certificates");
                    *configuration = patched;
                }
                Err(error) => {
                    tracing::warn!(name, %error, "the webhook's configuration cannot be changed");
                    again = true;
                }
            }
        }
    }
}

fn note(
    known: &mut BTreeMap<String, MutatingWebhookConfiguration>,
    event: watcher::Event<MutatingWebhookConfiguration>,
) {
    let name = |configuration: &MutatingWebhookConfiguration| configuration.metadata.name.clone().unwrap_or_default();
    match event {
        watcher::Event::Init => known.clear(),
        watcher::Event::InitDone => {}
        watcher::Event::InitApply(configuration) | watcher::Event::Apply(configuration) => {
            known.insert(name(&configuration), configuration);
        }
        watcher::Event::Delete(configuration) => drop(known.remove(&name(&configuration))),
    }
}

/// What has to change; nothing where all webhooks have these certificates.
fn bundle_patch(configuration: &MutatingWebhookConfiguration, pem: &str) -> Option<Value> {
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    let others = webhooks
        .iter()
        .filter(|webhook| webhook.client_config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != pem.as_bytes()));
    let patches: Vec<Value> = others
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": STANDARD.encode(pem)}}))
        .collect();
    (!patches.is_empty()).then(|| json!({"webhooks": patches}))
}

/// Keeps the settings what the ConfigMap says; where something is wrong with it, what it said last.
pub(crate) async fn keep_settings(
    client: Client,
    namespace: String,
    settings: Arc<ArcSwap<Settings>>,
    stop: CancellationToken,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let mut found = Box::pin(watch_object(api, CONFIG_MAP));
    loop {
        let next = tokio::select! {
            next = found.next() => next,
            () = stop.cancelled() => return,
        };
        let config = match next {
            Some(Ok(None)) => Ok(InjectorConfig::default()),
            Some(Ok(Some(map))) => {
                let text = map.data.as_ref().and_then(|data| data.get(CONFIG_KEY));
                text.ok_or_else(|| format!("it has no key `{CONFIG_KEY}`"))
                    .and_then(|text| InjectorConfig::from_yaml(text))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the injector's configuration cannot be watched");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            None => return,
        };
        match config {
            Ok(config) if settings.load().config == config => {}
            Ok(config) => {
                tracing::info!("the injector's configuration has changed");
                settings.store(Arc::new(Settings { config, ..Settings::clone(&settings.load()) }));
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "ConfigMap {namespace}/{CONFIG_MAP} cannot be used: what it said before is in force"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_other_certificates_are_changed() {
        let webhook = |name: &str, bundle: &str| {
            json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": "https://x", "caBundle": STANDARD.encode(bundle)}})
        };
        let configuration = |webhooks: Vec<Value>| {
            serde_json::from_value::<MutatingWebhookConfiguration>(
                json!({"metadata": {"name": "c"}, "webhooks": webhooks}),
            )
            .unwrap()
        };
        assert_eq!(bundle_patch(&configuration(vec![webhook("a", "ours"), webhook("b", "ours")]), "ours"), None);
        let patch = bundle_patch(&configuration(vec![webhook("a", "ours"), webhook("b", "old")]), "ours").unwrap();
        assert_eq!(patch, json!({"webhooks": [{"name": "b", "clientConfig": {"caBundle": STANDARD.encode("ours")}}]}));
    }
}

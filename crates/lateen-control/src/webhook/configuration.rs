//! What the webhook needs of the API server: that its configuration there names the authority of our certificate (`caBundle`), and
//! the injector's own configuration, which an administrator keeps in a ConfigMap. Both are looked at whenever they change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::inject::config::{CONFIG_KEY, CONFIG_MAP};
use crate::inject::{InjectorConfig, Settings};

/// After a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Under which our changes are known.
const MANAGER: &str = "lateend";

/// Keeps `caBundle` of a webhook configuration what our authority's roots are, for as long as we serve.
pub(crate) async fn keep_bundle(client: Client, name: String, authority: Authority, stop: CancellationToken) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let mut changes = authority.watch();
    let mut found = Box::pin(watch_object(api.clone(), &name));
    let mut newest = None;
    loop {
        tokio::select! {
            next = found.next() => match next {
                Some(Ok(configuration)) => newest = configuration,
                Some(Err(error)) => {
                    tracing::warn!(name, %error, "the webhook's configuration cannot be watched");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                None => return,
            },
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let Some(configuration) = &newest else { continue };
        let bundle = authority.current().roots().to_pem();
        let Some(patch) = bundle_patch(configuration, &bundle) else { continue };
        match api
            .patch(
                &name,
                &PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
                &Patch::Strategic(patch),
            )
            .await
        {
            Ok(_) => tracing::info!(name, "the webhook's configuration has our authority's certificates"),
            Err(error) => {
                tracing::warn!(name, %error, "the webhook's configuration cannot be changed");
                tokio::time::sleep(PAUSE).await;
                // Whoever it was that was in the way, it is looked at again.
                found = Box::pin(watch_object(api.clone(), &name));
            }
        }
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

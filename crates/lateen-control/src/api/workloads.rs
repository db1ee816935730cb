//! For whoever runs pods, injection and tokens; for whoever asks about them, who may ask them for what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use lateen_api::{Kind, Object, parse_json};
use lateen_identity::SpiffeId;
use lateen_identity::token::{Bearer, TokenError};
use lateen_translate::AuthorizationView;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Failure};
use crate::inject::{self, Injected, Place, Subject};
use crate::source::dir::DEFAULT_NAMESPACE;

/// `POST /api/v1/inject` with a Pod.
pub(super) async fn inject(State(api): State<Arc<Api>>, Json(pod): Json<Value>) -> Result<Json<Value>, Failure> {
    let (metrics, since) = (&api.metrics.injection, Instant::now());
    metrics.asked.inc();
    let done = injected(&api, &pod);
    metrics.time.observe(since.elapsed().as_secs_f64());
    match &done {
        Ok(injected) if injected.refused.is_none() => metrics.injected.inc(),
        Ok(_) => metrics.skipped.inc(),
        Err(_) => metrics.failed.inc(),
    };
    let injected = done?;
    let reason = injected.refused.as_ref().map(ToString::to_string);
    Ok(Json(json!({"pod": injected.pod, "injected": reason.is_none(), "reason": reason})))
}

fn injected(api: &Api, pod: &Value) -> Result<Injected, Failure> {
    let object = parse_json("pod", pod, DEFAULT_NAMESPACE).map_err(Failure::Invalid)?;
    let Object::Pod(pod) = object else {
        return Err(Failure::BadRequest(format!("a Pod is expected, not a {}", object.kind())));
    };
    let contents = api.store.contents();
    let labels = match contents.get(Kind::Namespace, "", pod.namespace()) {
        Some(namespace) => namespace.labels().clone(),
        None => BTreeMap::new(),
    };
    let json = pod.to_json();
    let place = Place { object: Some(pod.key().into()), ..Place::nowhere("pod") };
    let subject = Subject::new(&json, pod.namespace(), None, place).map_err(Failure::Invalid)?;
    inject::inject(&subject, &labels, &contents.proxy_configs(), &api.injection).map_err(Failure::Invalid)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenFor {
    namespace: String,
    service_account: String,
    pod: String,
    #[serde(default)]
    uid: String,
}

/// `POST /api/v1/token`
pub(super) async fn token(State(api): State<Arc<Api>>, Json(wanted): Json<TokenFor>) -> Result<Json<Value>, Failure> {
    let TokenFor { namespace, service_account, pod, uid } = wanted;
    // A token for a name that can be no identity would be refused later, where nobody sees why.
    SpiffeId::new(&api.injection.trust_domain, &namespace, &service_account)
        .map_err(|error| Failure::BadRequest(error.to_string()))?;
    if pod.is_empty() {
        return Err(Failure::BadRequest("`pod` is empty".to_owned()));
    }
    let bearer = Bearer { namespace, service_account, pod, uid };
    let (token, ends) =
        api.tokens.mint(&bearer, SystemTime::now()).map_err(|error| Failure::Internal(error.to_string()))?;
    let expires = jiff::Timestamp::try_from(ends).map(|time| time.to_string()).unwrap_or_default();
    Ok(Json(json!({"token": token, "expires": expires})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JoinTokenFor {
    namespace: String,
    service_account: String,
    /// Left out: an hour.
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

/// `POST /api/v1/join-token`: by which something that is no pod gets its first certificate, once.
pub(super) async fn join_token(
    State(api): State<Arc<Api>>,
    Json(wanted): Json<JoinTokenFor>,
) -> Result<Json<Value>, Failure> {
    let JoinTokenFor { namespace, service_account, ttl_seconds } = wanted;
    let id = SpiffeId::new(&api.injection.trust_domain, &namespace, &service_account)
        .map_err(|error| Failure::BadRequest(error.to_string()))?;
    let (tokens, lifetime) = (Arc::clone(&api.joining), Duration::from_secs(ttl_seconds.unwrap_or(3600)));
    let create = move || tokens.create(&namespace, &service_account, lifetime, SystemTime::now());
    let created = tokio::task::spawn_blocking(create).await.map_err(|error| Failure::Internal(error.to_string()))?;
    let (token, ends) = created.map_err(|error| match error {
        TokenError::Invalid(reason) => Failure::BadRequest(reason),
        error => Failure::Internal(error.to_string()),
    })?;
    let expires = jiff::Timestamp::try_from(ends).map(|time| time.to_string()).unwrap_or_default();
    tracing::info!(target: "audit", %id, expires, "join token made");
    Ok(Json(json!({"token": token, "expires": expires, "id": id.to_string()})))
}

#[derive(Deserialize)]
pub(super) struct OfPod {
    namespace: String,
    pod: String,
}

/// `GET /api/v1/authorization?namespace=N&pod=P`: what holds for a pod; nothing, if there is none of that name.
pub(super) async fn authorization(
    State(api): State<Arc<Api>>,
    Query(wanted): Query<OfPod>,
) -> Json<Option<AuthorizationView>> {
    let snapshot = api.pushed.snapshot();
    Json(AuthorizationView::of(snapshot.mesh(), &wanted.namespace, &wanted.pod))
}

//! Kubernetes' word on a token (`authentication.k8s.io/v1` TokenReview): whether it holds, for whom it is, and for which pod.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use lateen_identity::TrustBundle;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::token::AUDIENCE;
use lateen_identity::token::oidc::Vouched;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::web::{Client, anywhere, https};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many are asked about at a time; others wait.
const AT_ONCE: usize = 32;
/// No answer is longer, nor any token.
const MAX_ANSWER: usize = 256 << 10;
const MAX_TOKEN: usize = 16 << 10;
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Where the API server is, and what we show it. The files are read for each question: they are renewed in place.
#[derive(Debug, Clone)]
pub struct ApiServer {
    /// `https://host:port`.
    pub url: String,
    /// Whose certificate it has, PEM.
    pub ca: PathBuf,
    /// Our own token.
    pub token: PathBuf,
}

/// Asks about tokens. Cloning shares.
#[derive(Clone)]
pub struct Reviewer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of reviews.
    uri: Uri,
    files: ApiServer,
    places: Semaphore,
}

/// Why a token is nobody's.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server says so, or says what cannot be believed.
    #[error("Kubernetes does not take the token: {0}")]
    Refused(String),
    /// Nobody knows.
    #[error("Kubernetes cannot be asked about the token: {0:#}")]
    Unknown(anyhow::Error),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl Reviewer {
    /// # Errors
    /// A URL that is none, or not https.
    pub fn new(server: ApiServer) -> anyhow::Result<Self> {
        let uri = https(&format!("{}{PATH}", server.url.trim_end_matches('/')))?;
        let shared = Shared { uri, files: server, places: Semaphore::new(AT_ONCE) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Asks about a token, which must be meant for us.
    ///
    /// # Errors
    /// It does not hold, is for somebody else or of nobody's service account; or the API server does not say.
    pub async fn review(&self, token: &str) -> Result<Vouched, ReviewError> {
        if token.len() > MAX_TOKEN {
            return Err(ReviewError::Refused("it is too long".to_owned()));
        }
        let asking = async {
            let _place = self.shared.places.acquire().await?;
            self.shared.ask(token).await
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let answer = answer.map_err(|_| ReviewError::Unknown(anyhow!("no answer within {} s", PATIENCE.as_secs())))?;
        believed(answer.map_err(ReviewError::Unknown)?.status).map_err(ReviewError::Refused)
    }
}

impl Shared {
    async fn ask(&self, token: &str) -> anyhow::Result<Answer> {
        let ApiServer { ca, token: own, .. } = &self.files;
        let pem = tokio::fs::read(ca).await.with_context(|| ca.display().to_string())?;
        let roots = TrustBundle::from_pem(&pem).with_context(|| ca.display().to_string())?;
        let own = tokio::fs::read_to_string(own).await.with_context(|| own.display().to_string())?;
        let config = web_client(Roots::Given(&roots), None, &[b"http/1.1"])?;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let request = Request::builder()
            .method(Method::POST)
            .header(header::AUTHORIZATION, format!("Bearer {}", own.trim()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))?;
        let client = Client { tls: Arc::new(config), is_permitted: &anywhere, longest: MAX_ANSWER };
        let answer = client.ask(&self.uri, request).await?;
        if !matches!(answer.status(), StatusCode::OK | StatusCode::CREATED) {
            bail!("it answers {}", answer.status());
        }
        serde_json::from_slice(answer.body()).context("the answer is no TokenReview")
    }
}

/// What follows from an answer. An API server that knows nothing of audiences names none: its word is about somebody else then.
fn believed(status: Status) -> Result<Vouched, String> {
    let Status { authenticated, user, audiences, error } = status;
    if !authenticated {
        return Err(if error.is_empty() { "it does not hold".to_owned() } else { error });
    }
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(format!("it is not meant for {AUDIENCE}"));
    }
    let account = user.username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let is_account = user.groups.iter().any(|group| group == "system:serviceaccounts");
    let Some((namespace, service_account)) = account.filter(|_| is_account) else {
        return Err(format!("{} is no service account", user.username));
    };
    let extra = |name: &str| {
        let values = user.extra.get(&format!("authentication.kubernetes.io/{name}"))?;
        values.first().filter(|_| values.len() == 1).cloned()
    };
    let pod = extra("pod-name").map(|name| (name, extra("pod-uid").unwrap_or_default()));
    Ok(Vouched { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(change: impl FnOnce(&mut Status)) -> Status {
        let extra = [("pod-name", "web-1"), ("pod-uid", "uid-1")]
            .map(|(name, value)| (format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]));
        let mut status = Status {
            authenticated: true,
            user: User {
                username: "system:serviceaccount:default:web".to_owned(),
                groups: vec!["system:authenticated".to_owned(), "system:serviceaccounts".to_owned()],
                extra: extra.into(),
            },
            audiences: vec![AUDIENCE.to_owned()],
            error: String::new(),
        };
        change(&mut status);
        status
    }

    #[test]
    fn only_a_service_accounts_token_for_us_is_believed() {
        let reviewed = believed(status(|_| {})).expect("it is good");
        assert_eq!((&*reviewed.namespace, &*reviewed.service_account), ("default", "web"));
        assert_eq!(reviewed.pod, Some(("web-1".to_owned(), "uid-1".to_owned())));
        assert_eq!(believed(status(|it| it.user.extra.clear())).expect("it is good").pod, None);
        for (what, status) in [
            ("not authenticated", status(|it| it.authenticated = false)),
            ("no audience", status(|it| it.audiences.clear())),
            ("another audience", status(|it| it.audiences = vec!["vault".to_owned()])),
            ("a person", status(|it| it.user.username = "admin".to_owned())),
            ("a name like an account's", status(|it| it.user.groups.clear())),
            ("half a name", status(|it| it.user.username = "system:serviceaccount:web".to_owned())),
        ] {
            assert!(believed(status).is_err(), "{what}");
        }
    }
}

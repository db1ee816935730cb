//! Objects through the API: read, applied, deleted, and waited for.

use anyhow::{Context as _, bail};
use http::StatusCode;
use hyper::Method;
use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, Kind, ObjectKey};
use lateen_translate::AuthorizationView;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ControlPlane;

/// What an apply or a delete came to.
#[derive(Debug, Deserialize)]
pub(crate) struct Changed {
    pub(crate) revision: u64,
    pub(crate) results: Vec<Outcome>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) action: String,
}

impl Outcome {
    /// Whether it is about this object.
    pub(crate) fn is(&self, object: &Subject) -> bool {
        self.kind.name() == object.kind && self.namespace == object.namespace && self.name == object.name
    }
}

/// A text of YAML documents, and what it is called.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Named {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// `GET /api/v1/wait`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Waited {
    pub(crate) live: usize,
    pub(crate) total: usize,
    pub(crate) pending: Vec<Pending>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pending {
    pub(crate) proxy: String,
    pub(crate) reason: String,
}

/// The control plane refuses what was sent.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Vec<Diagnostic>);

impl ControlPlane {
    /// Applies texts of YAML documents: all of them or none.
    pub(crate) async fn apply(
        &self,
        texts: &[Named],
        namespace: &str,
        dry_run: bool,
    ) -> anyhow::Result<Result<Changed, Refused>> {
        let path = format!("/api/v1/apply?several=true&namespace={namespace}&dryRun={dry_run}");
        let body = serde_json::to_vec(texts)?;
        self.change(&path, body).await
    }

    /// Deletes objects by their names.
    pub(crate) async fn delete(&self, keys: &[ObjectKey]) -> anyhow::Result<Result<Changed, Refused>> {
        let body = serde_json::to_vec(&json!({ "objects": keys }))?;
        self.change("/api/v1/delete", body).await
    }

    async fn change(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Result<Changed, Refused>> {
        #[derive(Deserialize)]
        struct Complaint {
            diagnostics: Vec<Diagnostic>,
        }
        let (status, body) = self.ask(Method::POST, path, body, "application/json").await?;
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let complaint: Complaint = serde_json::from_slice(&body).context("the control plane's complaint")?;
            return Ok(Err(Refused(complaint.diagnostics)));
        }
        if !status.is_success() {
            bail!("the control plane answers {status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(Ok(serde_json::from_slice(&body).context("the control plane's answer")?))
    }

    /// Waits until every proxy concerned has what `revision` caused, or refuses it, or the time is over.
    pub(crate) async fn wait(&self, revision: u64, limit: std::time::Duration) -> anyhow::Result<Waited> {
        self.get(&format!("/api/v1/wait?revision={revision}&timeoutMs={}", limit.as_millis())).await
    }

    /// The same for whatever is newest.
    pub(crate) async fn wait_for_newest(&self, limit: std::time::Duration) -> anyhow::Result<Waited> {
        self.get(&format!("/api/v1/wait?timeoutMs={}", limit.as_millis())).await
    }

    /// Objects of a kind, as JSON.
    pub(crate) async fn objects(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> anyhow::Result<Vec<Value>> {
        #[derive(Deserialize)]
        struct List {
            items: Vec<Value>,
        }
        let mut path = format!("/api/v1/objects?kind={}", kind.id());
        for (key, value) in [("namespace", namespace), ("name", name)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={value}"));
            }
        }
        Ok(self.get::<List>(&path).await?.items)
    }

    /// The certificate authority's roots, and where it stands between one and the next, as JSON.
    pub(crate) async fn authority(&self) -> anyhow::Result<Value> {
        self.get("/api/v1/authority").await
    }

    /// A token for something that is no pod, as JSON.
    pub(crate) async fn join_token(
        &self,
        namespace: &str,
        account: &str,
        ttl: std::time::Duration,
    ) -> anyhow::Result<Value> {
        let wanted = json!({"namespace": namespace, "serviceAccount": account, "ttlSeconds": ttl.as_secs()});
        self.post("/api/v1/join-token", &wanted).await
    }

    /// Takes the next step from one root to the next.
    pub(crate) async fn rotate_authority(&self, force: bool) -> anyhow::Result<Value> {
        self.post(&format!("/api/v1/authority/rotate?force={force}"), &Value::Null).await
    }

    /// Who may ask a pod for what; none, if there is no such pod.
    pub(crate) async fn authorization(&self, namespace: &str, pod: &str) -> anyhow::Result<Option<AuthorizationView>> {
        self.get(&format!("/api/v1/authorization?namespace={namespace}&pod={pod}")).await
    }

    /// Each connected proxy and how far it has come, as JSON.
    pub(crate) async fn proxies(&self) -> anyhow::Result<Value> {
        self.get("/api/v1/proxies").await
    }
}

//! Who calls: by a pod's token, ours or Kubernetes', by the token of an issuer, by a join token, or by the certificate that the
//! caller's TLS connection has shown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_identity::token::join::{self, JoinTokens, Taken};
use lateen_identity::token::oidc::Vouched;
use lateen_identity::token::{self, Bearer, PodTokens, TokenError};
use lateen_identity::{PeerIdentity, SpiffeId, WorkloadName};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::issuers::{Issuers, NotVouched};
use crate::token_review::{ReviewError, Reviewer};

/// What a listener knows of a connection; put into the extensions of its requests.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    pub address: SocketAddr,
    /// The listener trusts whoever can reach it (plaintext on loopback).
    pub local: bool,
    /// The names in the client's certificate, which has been checked.
    pub peer: Option<PeerIdentity>,
}

/// A caller who has proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
    /// The pod that a token is bound to; a certificate only names the service account.
    pub pod: Option<Bearer>,
    /// What the certificate that the caller has shown says of the workload.
    pub workload: Option<WorkloadName>,
}

/// Checks callers.
#[derive(Clone)]
pub struct Authenticator {
    tokens: Arc<PodTokens>,
    joining: Arc<JoinTokens>,
    /// For tokens of theirs.
    issuers: Issuers,
    /// For other tokens that are not ours.
    kubernetes: Option<Reviewer>,
    trust_domain: String,
}

impl Authenticator {
    pub fn new(
        tokens: Arc<PodTokens>,
        joining: Arc<JoinTokens>,
        issuers: Issuers,
        kubernetes: Option<Reviewer>,
        trust_domain: &str,
    ) -> Self {
        Self { tokens, joining, issuers, kubernetes, trust_domain: trust_domain.to_owned() }
    }

    /// The caller of a request. A token counts before a certificate, and a bad token is not made good by a certificate. A join
    /// token is none here: it is good for a first certificate, and for nothing else.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a proof, or with one that does not hold; `UNAVAILABLE` where whoever knows cannot be asked.
    pub async fn caller(&self, metadata: &MetadataMap, connection: Option<&ConnectionInfo>) -> Result<Caller, Status> {
        if let Some(token) = bearer(metadata)? {
            return self.bearer(token).await;
        }
        let peer = connection.and_then(|connection| connection.peer.as_ref());
        let peer = peer.ok_or_else(|| refuse("neither a token nor a client certificate"))?;
        let id = peer.spiffe_id().ok_or_else(|| refuse("the client certificate names no workload"))?;
        if id.trust_domain() != self.trust_domain {
            return Err(refuse("the client certificate is of another trust domain"));
        }
        Ok(Caller { id, pod: None, workload: peer.workload.clone() })
    }

    async fn bearer(&self, token: &str) -> Result<Caller, Status> {
        if token.starts_with(join::PREFIX) {
            return Err(refuse("a join token is good for a first certificate only"));
        }
        if let Some(vouched) = self.issuers.verify(token) {
            let vouched = vouched.map_err(|error| match error {
                NotVouched::Refused(..) => refuse(&error.to_string()),
                NotVouched::NoKeys(_) => Status::unavailable(error.to_string()),
            })?;
            return self.vouched(vouched);
        }
        if let Some(kubernetes) = self.kubernetes.as_ref().filter(|_| !token::claims_to_be_ours(token)) {
            let reviewed = kubernetes.review(token).await.map_err(|error| match error {
                ReviewError::Refused(_) => refuse(&error.to_string()),
                ReviewError::Unknown(_) => {
                    tracing::warn!(%error, "a caller's token cannot be checked");
                    Status::unavailable("the token cannot be checked at present")
                }
            })?;
            return self.vouched(reviewed);
        }
        let bearer = self.tokens.verify(token, SystemTime::now()).map_err(|error| refuse(&error.to_string()))?;
        Ok(Caller { id: self.id(&bearer.namespace, &bearer.service_account)?, pod: Some(bearer), workload: None })
    }

    fn vouched(&self, vouched: Vouched) -> Result<Caller, Status> {
        let Vouched { namespace, service_account, pod } = vouched;
        let id = self.id(&namespace, &service_account)?;
        let pod = pod.map(|(pod, uid)| Bearer { namespace, service_account, pod, uid });
        Ok(Caller { id, pod, workload: None })
    }

    /// Takes the join token of a request, if it has one; it is to be given back if nothing comes of it.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub async fn joining(&self, metadata: &MetadataMap) -> Result<Option<(Caller, Taken)>, Status> {
        let Some(token) = bearer(metadata)?.filter(|token| token.starts_with(join::PREFIX)) else { return Ok(None) };
        let (tokens, token) = (Arc::clone(&self.joining), token.to_owned());
        let taken = tokio::task::spawn_blocking(move || tokens.take(&token, SystemTime::now())).await;
        let taken = taken.map_err(|_| Status::internal("the join token cannot be taken"))?;
        let taken = taken.map_err(|error| match error {
            TokenError::Spent => refuse(&error.to_string()),
            error => {
                tracing::error!(%error, "a join token cannot be taken");
                Status::unavailable("the join token cannot be taken at present")
            }
        })?;
        let id = self.id(&taken.joining.namespace, &taken.joining.service_account)?;
        Ok(Some((Caller { id, pod: None, workload: None }, taken)))
    }

    /// Makes a join token good again.
    pub async fn give_back(&self, taken: Taken) {
        let tokens = Arc::clone(&self.joining);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || tokens.give_back(taken)).await {
            tracing::error!(%error, "a join token for which nothing was had is spent");
        }
    }

    fn id(&self, namespace: &str, service_account: &str) -> Result<SpiffeId, Status> {
        SpiffeId::new(&self.trust_domain, namespace, service_account).map_err(|error| refuse(&error.to_string()))
    }
}

fn refuse(why: &str) -> Status {
    Status::unauthenticated(why.to_owned())
}

/// The token of a request, if it has one.
fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(header) = metadata.get("authorization") else { return Ok(None) };
    let header = header.to_str().map_err(|_| refuse("the authorization header is not text"))?;
    let token = header.strip_prefix("Bearer ").ok_or_else(|| refuse("the authorization header has no bearer token"))?;
    Ok(Some(token.trim()))
}

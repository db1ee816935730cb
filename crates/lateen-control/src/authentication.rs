//! Who calls: by a pod's token, or by the certificate that the caller's TLS connection has shown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_identity::token::{Bearer, PodTokens};
use lateen_identity::{PeerIdentity, SpiffeId};
use tonic::Status;
use tonic::metadata::MetadataMap;

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
}

/// Checks callers.
#[derive(Clone)]
pub struct Authenticator {
    tokens: Arc<PodTokens>,
    trust_domain: String,
}

impl Authenticator {
    pub fn new(tokens: Arc<PodTokens>, trust_domain: &str) -> Self {
        Self { tokens, trust_domain: trust_domain.to_owned() }
    }

    /// The caller of a request. A token counts before a certificate, and a bad token is not made good by a certificate.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a proof, or with one that does not hold.
    pub fn caller(&self, metadata: &MetadataMap, connection: Option<&ConnectionInfo>) -> Result<Caller, Status> {
        let refuse = |why: &str| Status::unauthenticated(why.to_owned());
        if let Some(header) = metadata.get("authorization") {
            let header = header.to_str().map_err(|_| refuse("the authorization header is not text"))?;
            let token =
                header.strip_prefix("Bearer ").ok_or_else(|| refuse("the authorization header has no bearer token"))?;
            let bearer =
                self.tokens.verify(token.trim(), SystemTime::now()).map_err(|error| refuse(&error.to_string()))?;
            let id = SpiffeId::new(&self.trust_domain, &bearer.namespace, &bearer.service_account)
                .map_err(|error| refuse(&error.to_string()))?;
            return Ok(Caller { id, pod: Some(bearer) });
        }
        let peer = connection.and_then(|connection| connection.peer.as_ref());
        let peer = peer.ok_or_else(|| refuse("neither a token nor a client certificate"))?;
        let id = peer.spiffe_id().ok_or_else(|| refuse("the client certificate names no workload"))?;
        if id.trust_domain() != self.trust_domain {
            return Err(refuse("the client certificate is of another trust domain"));
        }
        Ok(Caller { id, pod: None })
    }
}

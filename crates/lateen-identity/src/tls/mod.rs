//! TLS configurations: mesh mTLS, where names are SPIFFE ids and checked by us, and ordinary TLS to servers outside.
//!
//! TLS 1.3 preferred and 1.2 allowed, X25519MLKEM768 first, one provider (aws-lc-rs) named in each configuration.

pub mod verify;

use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};

use crate::{Identity, TrustBundle};
use verify::{Anchors, Authorities, Clients, Servers};

/// Sessions that a client remembers, per configuration.
const SESSIONS: usize = 256;

/// Which peers are accepted, once their certificate chains to a trusted root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// One of these URI SANs. An empty list accepts nobody.
    Sans(Vec<String>),
    /// A workload (exactly one URI SAN, a SPIFFE id) of one of these trust domains.
    TrustDomains(Vec<String>),
}

/// Whether a server insists on a client's certificate. One that is shown is always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    Required,
    Optional,
}

/// Whom an ordinary client trusts.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'a> {
    /// The web's authorities.
    Public,
    Given(&'a TrustBundle),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// aws-lc-rs; with the feature `prefer-post-quantum` its key exchange groups start with X25519MLKEM768.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Connects to workloads, as one or as nobody. The SNI is whatever the caller connects with; it plays no part in the check.
///
/// # Errors
/// An identity whose key cannot be used.
pub fn mesh_client(
    identity: Option<&Identity>,
    trust: &TrustBundle,
    expected: ExpectedPeer,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let authorities = Authorities::Workloads(Anchors::new(trust.store()));
    let verifier = Servers::new(Some(authorities), expected, Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(finish(authenticated(builder, identity)?, alpn))
}

/// Serves workloads of the mesh.
///
/// # Errors
/// An identity whose key cannot be used.
pub fn mesh_server(
    identity: &Identity,
    authorities: Authorities,
    expected: ExpectedPeer,
    clients: ClientAuth,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let verifier = Clients::new(authorities, expected, clients, Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain().to_vec(), identity.key().clone_key())?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Connects to an ordinary server: its certificate must name the host that is connected to. With an identity this is
/// DestinationRule's `MUTUAL`, without one `SIMPLE`.
///
/// # Errors
/// An identity whose key cannot be used.
pub fn web_client(roots: Roots<'_>, identity: Option<&Identity>, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let store = match roots {
        Roots::Public => Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
        Roots::Given(bundle) => bundle.store(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    Ok(finish(authenticated(builder, identity)?, alpn))
}

fn authenticated(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key())?,
    })
}

fn finish(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config
}

#[cfg(test)]
mod tests;

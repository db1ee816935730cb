//! TLS of the control plane's own port: a certificate by its own authority, renewed in time and when the authority changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use lateen_identity::rotation::Schedule;
use lateen_identity::tls::{ClientAuth, ExpectedPeer, mesh_server};
use lateen_identity::{Identity, Trust};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;

/// The names of the control plane, ours and the one that Istio's own configuration uses.
const DNS_NAMES: [&str; 5] = [
    "lateend.istio-system.svc",
    "lateend.istio-system.svc.cluster.local",
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
    "localhost",
];

/// The configuration, and what the next one is made of.
pub(crate) struct ServingTls {
    authority: Authority,
    trust_domain: String,
    address: IpAddr,
    identity: Identity,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl ServingTls {
    /// For a port at this address.
    ///
    /// # Errors
    /// An authority that does not sign.
    pub(crate) fn new(authority: Authority, trust_domain: &str, address: IpAddr) -> anyhow::Result<Self> {
        let (identity, config) = make(&authority, trust_domain, address)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        Ok(Self { authority, trust_domain: trust_domain.to_owned(), address, identity, config })
    }

    /// Always the newest.
    pub(crate) fn config(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.config)
    }

    /// Keeps the configuration fresh for as long as we serve.
    pub(crate) async fn keep(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut schedule = Schedule::default();
        let mut changes = self.authority.watch();
        let mut due = schedule.issued(SystemTime::now(), self.identity.not_after(), rand::random());
        loop {
            let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changes.changed() => changed?,
                () = stop.cancelled() => return Ok(()),
            }
            due = match make(&self.authority, &self.trust_domain, self.address) {
                Ok((identity, config)) => {
                    self.config.store(Arc::new(config));
                    self.identity = identity;
                    schedule.issued(SystemTime::now(), self.identity.not_after(), rand::random())
                }
                Err(error) => {
                    tracing::error!(%error, "the certificate of the control plane cannot be renewed");
                    schedule.failed(SystemTime::now(), Some(self.identity.not_after()), rand::random())
                }
            };
        }
    }
}

/// Clients show certificates of the mesh, or none and a token.
fn make(authority: &Authority, trust_domain: &str, address: IpAddr) -> anyhow::Result<(Identity, ServerConfig)> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut addresses = loopback.to_vec();
    if !address.is_unspecified() && !loopback.contains(&address) {
        addresses.push(address);
    }
    let ca = authority.current();
    let identity = ca.server_identity(&DNS_NAMES, &addresses, SystemTime::now())?;
    let revocation = ca.revocation().cloned();
    let trust = Trust { revocation, ..Trust::of(trust_domain, ca.roots().clone()) };
    let expected = ExpectedPeer::TrustDomains(vec![trust_domain.to_owned()]);
    let config = mesh_server(&identity, trust.authorities(), expected, ClientAuth::Optional, &[b"h2"])?;
    Ok((identity, config))
}

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
use crate::manifest;

/// The Services of the control plane, ours and the one that Istio's own configuration uses.
const SERVICES: [&str; 2] = ["lateend", "istiod"];

/// The configuration, and what the next one is made of.
pub(crate) struct ServingTls {
    authority: Authority,
    trust_domain: String,
    revision: String,
    address: IpAddr,
    identity: Identity,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl ServingTls {
    /// For a port at this address.
    ///
    /// # Errors
    /// An authority that does not sign.
    pub(crate) fn new(
        authority: Authority,
        trust_domain: &str,
        revision: &str,
        address: IpAddr,
    ) -> anyhow::Result<Self> {
        let (identity, config) = make(&authority, trust_domain, revision, address)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        let (trust_domain, revision) = (trust_domain.to_owned(), revision.to_owned());
        Ok(Self { authority, trust_domain, revision, address, identity, config })
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
            due = match make(&self.authority, &self.trust_domain, &self.revision, self.address) {
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

/// By what names the control plane of a revision is called.
fn names(revision: &str) -> Vec<String> {
    let own = manifest::name(revision);
    let services = SERVICES.iter().copied().chain((!SERVICES.contains(&own.as_str())).then_some(own.as_str()));
    let full = services.flat_map(|service| {
        let name = format!("{service}.{}.svc", manifest::NAMESPACE);
        [format!("{name}.cluster.local"), name]
    });
    full.chain(["localhost".to_owned()]).collect()
}

/// Clients show certificates of the mesh, or none and a token.
fn make(
    authority: &Authority,
    trust_domain: &str,
    revision: &str,
    address: IpAddr,
) -> anyhow::Result<(Identity, ServerConfig)> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut addresses = loopback.to_vec();
    if !address.is_unspecified() && !loopback.contains(&address) {
        addresses.push(address);
    }
    let ca = authority.current();
    let names = names(revision);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identity = ca.server_identity(&names, &addresses, SystemTime::now())?;
    let revocation = ca.revocation().cloned();
    let trust = Trust { revocation, ..Trust::of(trust_domain, ca.roots().clone()) };
    let expected = ExpectedPeer::TrustDomains(vec![trust_domain.to_owned()]);
    let config = mesh_server(&identity, trust.authorities(), expected, ClientAuth::Optional, &[b"h2"])?;
    Ok((identity, config))
}

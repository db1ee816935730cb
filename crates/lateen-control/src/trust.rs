//! Whom workloads trust: the authority's roots for the mesh's own trust domain and its other names, told to proxies as it
//! changes.

use std::sync::Arc;

use lateen_identity::Trust;
use lateen_mesh::MeshConfig;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::source::dir::Source;

/// Who says whom to trust.
#[derive(Clone)]
pub struct Telling {
    authority: Authority,
    config: Arc<MeshConfig>,
    source: Arc<Source>,
}

impl Telling {
    pub(crate) fn new(authority: Authority, config: Arc<MeshConfig>, source: Arc<Source>) -> Self {
        Self { authority, config, source }
    }

    /// Has the store say what there is to trust now. Gives the revision from which on it is in force; none when the source has
    /// ended.
    pub(crate) async fn tell(&self) -> Option<u64> {
        self.source.trust(self.trust()).await
    }

    fn trust(&self) -> Trust {
        let ca = self.authority.current();
        let own = std::iter::once(&self.config.trust_domain).chain(&self.config.trust_domain_aliases);
        let domains = own.map(|domain| (domain.clone(), ca.roots().clone())).collect();
        Trust { domains, revocation: ca.revocation().cloned() }
    }

    /// Tells it as it changes, until it is time to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut changes = self.authority.watch();
        while self.tell().await.is_some() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }
}

//! Connections to the control plane: TLS to the name it was asked for by, checked against the roots that the pod was given.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::token::join;
use lateen_identity::{Identity, TrustBundle};
use lateen_xds::client::{Connect, ConnectError, Connection, channel};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::worker::Shared;

/// Where the control plane is, and what is shown to it.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    /// `host:port`.
    pub address: String,
    pub token: PathBuf,
    /// The roots that the pod was given when it began.
    pub roots: PathBuf,
    /// Who has learned since whom this trust domain trusts.
    pub learned: Option<(Arc<Shared>, String)>,
}

impl ControlPlane {
    /// A new connection. Roots are read each time: they change when the authority does.
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        let mut pem =
            tokio::fs::read(&self.roots).await.with_context(|| format!("cannot read {}", self.roots.display()))?;
        // A pod may outlive the root it began with.
        if let Some((shared, trust_domain)) = self.learned.as_ref().filter(|(shared, _)| !shared.tls.is_given()) {
            let roots = shared.tls.mesh_roots();
            for (_, more) in roots.iter().filter(|(domain, _)| domain.is_empty() || domain == trust_domain) {
                pem.push(b'\n');
                pem.extend_from_slice(more);
            }
        }
        let roots = TrustBundle::from_pem(&pem).with_context(|| self.roots.display().to_string())?;
        // A token says who we are better than a certificate does: of which pod. Where it is spent, the certificate has to do.
        let own = if self.authorization()?.is_none() { self.certificate() } else { None };
        let tls = web_client(Roots::Given(&roots), own.as_ref(), &[b"h2"])?;
        let channel = channel::secured(&self.address, tls, |endpoint| {
            endpoint
                .http2_keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(10))
                .keep_alive_while_idle(true)
                .connect_timeout(Duration::from_secs(10))
        });
        Ok(channel.await?)
    }

    /// The pod's token, which is renewed in place; none where it was a join token that has been used: the certificate that we
    /// got for it speaks for us from then on.
    pub(super) fn authorization(&self) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let token = std::fs::read_to_string(&self.token);
        let token = token.with_context(|| format!("cannot read {}", self.token.display()))?;
        if token.starts_with(join::PREFIX) && self.certificate().is_some() {
            return Ok(None);
        }
        Ok(Some(MetadataValue::try_from(format!("Bearer {}", token.trim()))?))
    }

    fn certificate(&self) -> Option<Identity> {
        let (shared, _) = self.learned.as_ref()?;
        Some(shared.tls.workload()?.identity.clone())
    }
}

impl Connect for ControlPlane {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let text = |error: anyhow::Error| ConnectError(format!("{error:#}"));
        let channel = Self::connect(self).await.map_err(text)?;
        let authorization = self.authorization().map_err(text)?;
        Ok(Connection { channel, authorization })
    }
}

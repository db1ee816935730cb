//! Connections to the control plane: TLS to the name it was asked for by, checked against the roots that the pod was given.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::Uri;
use hyper_util::rt::TokioIo;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::token::join;
use lateen_identity::{Identity, TrustBundle};
use lateen_xds::client::{Connect, ConnectError, Connection};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

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
        let (host, _) = self.address.rsplit_once(':').ok_or_else(|| anyhow!("{} has no port", self.address))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let mut pem =
            tokio::fs::read(&self.roots).await.with_context(|| format!("cannot read {}", self.roots.display()))?;
        // A pod may outlive the root it began with.
        if let Some((shared, trust_domain)) = &self.learned {
            let roots = shared.tls.mesh_roots();
            for (_, more) in roots.iter().filter(|(domain, _)| domain.is_empty() || domain == trust_domain) {
                pem.push(b'\n');
                pem.extend_from_slice(more);
            }
        }
        let roots = TrustBundle::from_pem(&pem).with_context(|| self.roots.display().to_string())?;
        // A token says who we are better than a certificate does: of which pod. Where it is spent, the certificate has to do.
        let own = if self.authorization()?.is_none() { self.certificate() } else { None };
        let dial = Dial {
            tls: TlsConnector::from(Arc::new(web_client(Roots::Given(&roots), own.as_ref(), &[b"h2"])?)),
            name: ServerName::try_from(host.clone()).with_context(|| format!("{host} is no host name"))?,
            address: self.address.clone(),
        };
        Endpoint::try_from(format!("https://{}", self.address))?
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_timeout(Duration::from_secs(10))
            .connect_with_connector(dial)
            .await
            .map_err(|error| anyhow!("{}: {}", self.address, ConnectError::from(error)))
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

/// Makes the connection below HTTP/2.
#[derive(Clone)]
struct Dial {
    tls: TlsConnector,
    name: ServerName<'static>,
    address: String,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { tls, name, address } = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            tls.connect(name, tcp).await.map(TokioIo::new)
        })
    }
}

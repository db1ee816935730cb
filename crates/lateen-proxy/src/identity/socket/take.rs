//! The client's side: certificate and roots as whoever listens gives them, for as long as it does. What came last serves on
//! when nobody listens any more.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use lateen_engine::config::Secret;
use lateen_identity::{Identity, SpiffeId, svid};
use lateen_xds::client::{
    self, Backoff, Connect, ConnectError, Connection, Handler, Interest, Rejection, Service, Status, Update, channel,
};
use lateen_xds::server::Variant;
use lateen_xds::type_url;
use prost::Message as _;
use tokio::sync::watch;

use crate::identity::put_in_force;
use crate::tls::{MESH_ROOTS, Trust, WORKLOAD_CERTIFICATE, material};
use crate::worker::Shared;

/// Pauses between attempts: whoever listens may come up after us, and is waited for by all that this proxy is to serve.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Takes the workload's identity from a socket for ever; `ready` becomes true with the first one. Where it is known who we are,
/// nobody else's certificate is taken.
pub(crate) async fn take(
    socket: PathBuf,
    node: Node,
    expected: Option<SpiffeId>,
    shared: Arc<Shared>,
    ready: watch::Sender<bool>,
) -> Infallible {
    tracing::info!(socket = %socket.display(), "the workload's identity is taken from a socket");
    let taking = Taking { expected, shared, ready, identity: None, roots: None };
    client::run(node, AtSocket(socket), taking, Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)).await
}

struct AtSocket(PathBuf);

impl Connect for AtSocket {
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let channel = channel::at_socket(self.0.clone()).await?;
        Ok(Connection { channel, authorization: None })
    }

    /// SPIRE's agent has only this.
    fn variant(&self) -> Variant {
        Variant::StateOfTheWorld
    }

    fn service(&self) -> Service {
        Service::Secrets
    }
}

struct Taking {
    expected: Option<SpiffeId>,
    shared: Arc<Shared>,
    ready: watch::Sender<bool>,
    identity: Option<Identity>,
    roots: Option<Arc<Secret>>,
}

impl Taking {
    fn secret(&mut self, name: &str, body: &[u8]) -> Result<(), String> {
        let secret = proto::Secret::decode(body).map_err(|error| error.to_string())?;
        let secret = Secret::from_xds(&secret)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        match (name, secret) {
            (WORKLOAD_CERTIFICATE, Secret::Certificate(certificate)) => {
                let pem = |source| material::bytes(source).map_err(|error| error.to_string());
                let identity = Identity::from_pem(&pem(&certificate.chain)?, &pem(&certificate.key)?);
                self.identity = Some(self.checked(identity.map_err(|error| error.to_string())?)?);
            }
            (MESH_ROOTS, Secret::Roots { trusted, crl }) => {
                material::authorities(&trusted, crl.as_ref()).map_err(|error| error.to_string())?;
                self.roots = Some(Arc::new(Secret::Roots { trusted, crl }));
            }
            (WORKLOAD_CERTIFICATE, Secret::Roots { .. }) => return Err("a tls_certificate is expected".to_owned()),
            (MESH_ROOTS, Secret::Certificate(_)) => return Err("a validation_context is expected".to_owned()),
            _ => return Err("nobody has asked for it".to_owned()),
        }
        Ok(())
    }

    /// A workload's certificate, and ours where it is known who we are.
    fn checked(&self, identity: Identity) -> Result<Identity, String> {
        let leaf = identity.chain().first().ok_or("there is no certificate")?;
        svid::trust_domain(leaf).map_err(|error| error.to_string())?;
        match &self.expected {
            Some(expected) if identity.names().spiffe_id().as_ref() != Some(expected) => {
                Err(format!("the certificate names {:?}, not {expected}", identity.names().uri_sans))
            }
            _ => Ok(identity),
        }
    }
}

impl Handler for Taking {
    async fn apply(&mut self, update: Update) -> Result<(), Vec<Rejection>> {
        let mut rejections = Vec::new();
        for upsert in update.upserts {
            if let Err(reason) = self.secret(&upsert.name, &upsert.body.value) {
                tracing::error!(secret = upsert.name, reason, "what the identity socket gives is not taken");
                rejections.push(Rejection { resource: upsert.name, reason });
            }
        }
        if let (Some(identity), Some(roots)) = (&self.identity, &self.roots) {
            put_in_force(&self.shared, identity.clone(), Trust::Given(Arc::clone(roots)));
            self.ready.send_replace(true);
        }
        if rejections.is_empty() { Ok(()) } else { Err(rejections) }
    }

    fn wanted(&self) -> Vec<(&'static str, Interest)> {
        let names = [WORKLOAD_CERTIFICATE, MESH_ROOTS].map(Arc::from);
        vec![(type_url::SECRET, Interest::Named(names.into()))]
    }

    fn status(&mut self, status: Status<'_>) {
        if let Status::Disconnected { reason, retry } = status {
            tracing::warn!(reason, ?retry, "the identity socket gives nothing; what it gave last serves on");
        }
    }
}

//! The server's side: the workload's certificate with its key, and whom the mesh trusts, for programs of the same pod. The kernel
//! says whose they are.

use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::google::protobuf::Any;
use lateen_engine::config::Secret;
use lateen_engine::config::tls::{Crl, Source, Trusted};
use lateen_xds::node::NodeInfo;
use lateen_xds::server::{Discovery, Limits, Peer, Progress, Proxy, Selection, Service, View};
use lateen_xds::{Resource, type_url};
use prost::{Message as _, Name as _};
use proto::secret::Type;
use proto::spiffe_cert_validator_config::TrustDomain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::tls::{MESH_ROOTS, TlsStore, WORKLOAD_CERTIFICATE, material};
use crate::worker::Shared;

/// So many programs may be connected at a time; others wait.
const CONNECTIONS: usize = 64;

/// Where it is given, and to whom besides our own user and root.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) peers: Vec<u32>,
}

/// Gives the workload's identity to whoever asks for it at a socket and may, once there is one, for as long as the process runs.
///
/// # Errors
/// A socket that cannot be made, or at which somebody else listens.
pub(crate) fn give(place: Place, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let listener = listen(&place).with_context(|| format!("cannot listen on {}", place.path.display()))?;
    let (sender, secrets) = watch::channel(Arc::default());
    tokio::spawn(follow(Arc::clone(shared), sender));
    tokio::spawn(async move {
        if let Err(error) = serve(listener, place.peers, secrets).await {
            tracing::error!(%error, "the workload's identity is not given to others any more");
        }
    });
    Ok(())
}

fn listen(place: &Place) -> anyhow::Result<UnixListener> {
    let path = &place.path;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("somebody else does");
    }
    // What an earlier process has left.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Others get as far as to be asked who they are.
    let mode = if place.peers.is_empty() { 0o600 } else { 0o666 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Keeps up with what there is to give.
async fn follow(shared: Arc<Shared>, sender: watch::Sender<Arc<Secrets>>) {
    let mut changes = shared.tls.changes();
    let mut revision = 0;
    loop {
        changes.mark_unchanged();
        if let Some(resources) = resources(&shared.tls) {
            revision += 1;
            sender.send_replace(Arc::new(Secrets { revision, resources }));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn serve(
    listener: UnixListener,
    peers: Vec<u32>,
    mut secrets: watch::Receiver<Arc<Secrets>>,
) -> anyhow::Result<()> {
    // Who comes before there is anything is let wait, and not told that there is nothing.
    secrets.wait_for(|secrets| secrets.revision > 0).await?;
    let (sender, incoming) = mpsc::channel(1);
    tokio::spawn(admit(listener, peers, sender));
    let service = Service::new(Offer(secrets), Limits::default()).into_secret_server();
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await?;
    Ok(())
}

/// Lets in whose process it is theirs to know.
async fn admit(listener: UnixListener, peers: Vec<u32>, admitted: mpsc::Sender<io::Result<Visitor>>) {
    let own = own_user();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: trying at once would only burn the processor.
                tracing::warn!(%error, "a connection at the secrets socket cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let user = stream.peer_cred().map(|peer| peer.uid());
        match user {
            Ok(user) if user == 0 || Some(user) == own || peers.contains(&user) => {
                if admitted.send(Ok(Visitor { stream, _place: place })).await.is_err() {
                    return;
                }
            }
            Ok(user) => tracing::warn!(user, "refused at the secrets socket"),
            Err(error) => tracing::warn!(%error, "refused at the secrets socket, not knowing who it is"),
        }
    }
}

/// A process owns its entry in /proc as its effective user.
fn own_user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").ok().map(|entry| entry.uid())
}

/// A connection that was let in, and its place among those that may be at the same time.
struct Visitor {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Visitor {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What there is to give; nothing at revision 0.
#[derive(Default)]
struct Secrets {
    revision: u64,
    resources: Vec<Resource>,
}

impl View for Secrets {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let is_wanted = |resource: &&Resource| match selection {
            Selection::All => true,
            Selection::Named(names) => names.contains(&resource.name),
        };
        let all = self.resources.iter().filter(|_| type_url == type_url::SECRET);
        all.filter(is_wanted).cloned().collect()
    }
}

struct Offer(watch::Receiver<Arc<Secrets>>);

impl Discovery for Offer {
    type Snapshot = Arc<Secrets>;
    type Proxy = Reader;

    fn snapshots(&self) -> watch::Receiver<Arc<Secrets>> {
        self.0.clone()
    }

    fn admit(&self, _: Peer, _: NodeInfo) -> impl Future<Output = Result<Reader, Status>> + Send {
        ready(Ok(Reader))
    }
}

/// Everybody who was let in is given the same.
struct Reader;

impl Proxy<Arc<Secrets>> for Reader {
    fn view(&mut self, snapshot: &Arc<Secrets>) -> Result<Arc<dyn View>, Status> {
        Ok(Arc::<Secrets>::clone(snapshot))
    }

    fn report(&mut self, progress: &Progress) {
        for rejection in &progress.rejections {
            tracing::warn!(reason = rejection.message, "a program of the pod refuses what the secrets socket gives");
        }
    }
}

/// Certificate and roots in the form in which they are asked for.
fn resources(store: &TlsStore) -> Option<Vec<Resource>> {
    let (workload, roots) = store.own_secrets()?;
    let Secret::Roots { trusted, crl } = &*roots else { return None };
    let certificate = proto::TlsCertificate {
        certificate_chain: Some(inline(workload.identity.chain_pem().into_bytes())),
        private_key: Some(inline(workload.identity.key_pem().into_bytes())),
        ..Default::default()
    };
    let validation = validation(trusted, crl.as_ref())?;
    Some(vec![
        resource(WORKLOAD_CERTIFICATE, Type::TlsCertificate(certificate)),
        resource(MESH_ROOTS, Type::ValidationContext(validation)),
    ])
}

fn validation(trusted: &Trusted, crl: Option<&Crl>) -> Option<proto::CertificateValidationContext> {
    let data = |source: &Source| Some(inline(material::bytes(source).ok()?));
    let mut context = proto::CertificateValidationContext::default();
    match trusted {
        Trusted::Any(source) => context.trusted_ca = Some(data(source)?),
        Trusted::ByTrustDomain(domains) => {
            let domain = |(name, source): (&String, &Source)| {
                let trust_bundle = Some(data(source)?);
                Some(TrustDomain { name: name.clone(), trust_bundle, ..Default::default() })
            };
            let trust_domains = domains.iter().map(domain).collect::<Option<Vec<_>>>()?;
            let config = proto::SpiffeCertValidatorConfig { trust_domains, ..Default::default() };
            context.custom_validator_config = Some(TypedExtensionConfig {
                name: "envoy.tls.cert_validator.spiffe".to_owned(),
                typed_config: Some(Any {
                    type_url: proto::SpiffeCertValidatorConfig::type_url(),
                    value: config.encode_to_vec(),
                }),
            });
        }
    }
    if let Some(crl) = crl {
        context.crl = Some(data(&crl.lists)?);
        context.only_verify_leaf_cert_crl = crl.leaf_only;
    }
    Some(context)
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn resource(name: &str, value: Type) -> Resource {
    use sha2::Digest as _;
    let secret = proto::Secret { name: name.to_owned(), r#type: Some(value) };
    let value = secret.encode_to_vec();
    let digest: [u8; 32] = sha2::Sha256::digest(&value).into();
    let version = u64::from_be_bytes(digest[..8].try_into().expect("a hash is longer"));
    Resource::of_any(name, version, Any { type_url: type_url::SECRET.to_owned(), value })
}

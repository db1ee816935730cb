//! TLS contexts of the configuration made into TLS configurations, and connections secured with them.

mod certificates;
mod choice;
pub(crate) mod hello;
pub(crate) mod material;
mod secrets;
mod sessions;
pub(crate) mod stream;
mod verify;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use lateen_engine::config::cluster::ServerNames;
use lateen_engine::config::tls::{Common, DownstreamTls, UpstreamTls, Validation};
use lateen_engine::config::{Candidate, ConfigError, Secret, Snapshot};
use lateen_engine::filters::rbac::PeerNames;
use lateen_identity::tls::ClientAuth;
use lateen_identity::tls::verify::{Clients, Servers};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use tokio::sync::watch;

use crate::codec::mux;
use crate::listener::connection::PeerTls;
use crate::stream::Tcp;
use crate::telemetry::stream_info::UpstreamNames;
use crate::upstream::connect::Payload;
use certificates::OneOfSeveral;
use choice::{chosen, provider, versions};
use material::Identity;
pub(crate) use secrets::{MESH_ROOTS, Trust, WORKLOAD_CERTIFICATE, Workload};
use sessions::Sessions;
use stream::{Secured, Session};
use verify::{Matched, Named};

/// Why a context cannot be used, or a handshake failed.
#[derive(Debug)]
pub(crate) struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

/// Connects to a server whose certificate nobody checks.
pub(crate) fn any_server() -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Servers::new(None, Matched::new(None), provider()));
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(TlsError::new)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Built configurations, shared by all connections of equal contexts.
#[derive(Debug, Default)]
pub(crate) struct TlsStore {
    /// Whether connections are tunnelled to, and from, others of our proxies.
    tunnels: bool,
    built: AtomicU64,
    clients: Mutex<HashMap<u64, Client>>,
    servers: Mutex<HashMap<u64, Arc<Server>>>,
    workload: ArcSwapOption<Workload>,
    /// The workload's own certificate may still come.
    awaits_workload: bool,
    /// By name, as discovery sent them.
    secrets: ArcSwap<HashMap<Arc<str>, Arc<Secret>>>,
    /// How often any of these has changed.
    changes: watch::Sender<u64>,
}

/// Whether secrets that are not there may still come, and contexts that name them wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretsMay {
    Come,
    NotCome,
}

#[derive(Clone, Debug)]
struct Client {
    config: Arc<ClientConfig>,
    /// The same, offering a tunnel besides, where the peer may be one of ours.
    tunnelling: Option<Arc<ClientConfig>>,
    /// The same for each of [`FALLBACKS`], where no protocols are configured.
    falling_back: Option<[Arc<ClientConfig>; 3]>,
    /// Tells it from any that was built before or will be.
    number: u64,
    /// The config's own, to be asked by one that wants more.
    verifier: Arc<dyn ServerCertVerifier>,
    sessions: Arc<Sessions>,
    validates: bool,
    from_secrets: bool,
    /// The first URI name in our own certificate; empty for none.
    own_uri: Arc<str>,
}

/// What a connection sends as SNI (nothing if empty), and what the server must be called.
#[derive(Debug, Default)]
struct Names<'a> {
    sni: &'a str,
    san: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// The request's word, the host's name, the context's word.
    fn of(tls: &'a UpstreamTls, host: &'a str, names: Option<&'a ServerNames>) -> Self {
        let configured = if tls.auto_host_sni && !host.is_empty() { host } else { &tls.sni };
        let sni = names.and_then(|names| names.sni.as_deref()).unwrap_or(configured);
        let own = Some(sni).filter(|sni| tls.auto_sni_san_validation && !sni.is_empty());
        Self { sni, san: names.and_then(|names| names.san.as_deref()).or(own) }
    }
}

/// What is offered to a server by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// A tunnel, and what is configured.
    Tunnel,
    /// What is configured; if that is nothing, what goes with what is to be spoken (Envoy: `applicationProtocolFallback`).
    For(Payload),
}

/// By [`Payload`]: HTTP/1.1, HTTP/2, and either.
const FALLBACKS: [&[&[u8]]; 3] = [&[b"http/1.1"], &[b"h2"], &[b"h2", b"http/1.1"]];

/// What is the same for all connections to one server that may share a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identities {
    /// Of the configuration: context, certificate, and who is trusted.
    number: u64,
    sni: String,
    san: Option<String>,
}

/// A secured connection to an upstream.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub stream: Secured,
    /// What ALPN settled on.
    pub alpn: Option<Vec<u8>>,
    /// Until when the server's certificates are valid; none if they were not looked at.
    pub valid_until: Option<SystemTime>,
    pub names: Arc<UpstreamNames>,
}

/// A connection of a client, secured.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub stream: Secured,
    /// What a tunnelled connection would have been told too: its ALPN is what would have been settled on.
    pub peer: PeerTls,
    pub tunnel: Option<Terms>,
}

/// Under which a tunnel was accepted. A connection that comes through it must be one that would be accepted in the same way.
#[derive(Debug)]
pub(crate) struct Terms {
    server: Arc<Server>,
    valid_until: Option<SystemTime>,
}

#[derive(Debug)]
struct Server {
    config: Arc<ServerConfig>,
    /// The same for clients that offer a tunnel.
    tunnelling: Option<Arc<ServerConfig>>,
    /// The same for clients that offer nothing that is known here: they go on without ALPN, as with Envoy.
    silent: Option<Arc<ServerConfig>>,
    /// Who checks clients, if they are.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    local: Arc<PeerNames>,
}

impl TlsStore {
    pub(crate) fn new(tunnels: bool, awaits_workload: bool) -> Self {
        Self { tunnels, awaits_workload, ..Self::default() }
    }

    /// Takes a new certificate of the workload, and the roots that came with it; new connections use them.
    pub(crate) fn set_workload(&self, identity: lateen_identity::Identity, trust: Trust) {
        let since = SystemTime::now();
        self.workload.store(Some(Arc::new(Workload { identity, trust, since })));
        self.forget_what_secrets_made();
    }

    /// Tells of changes of the workload's certificate and of secrets.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes what discovery sent; new connections use it.
    pub(crate) fn set_secrets(&self, secrets: &HashMap<Arc<str>, Arc<Secret>>) {
        let same = |known: &HashMap<Arc<str>, Arc<Secret>>| {
            known.len() == secrets.len()
                && known.iter().all(|(name, secret)| secrets.get(name).is_some_and(|other| Arc::ptr_eq(secret, other)))
        };
        if !same(&self.secrets.load()) {
            self.secrets.store(Arc::new(secrets.clone()));
            self.forget_what_secrets_made();
        }
    }

    /// After a store: what is being built with the old ones now is dropped here, what is built later has the new ones.
    fn forget_what_secrets_made(&self) {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clients.retain(|_, client| !client.from_secrets);
        drop(clients);
        self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Forgets what was built for contexts that are no more.
    pub(crate) fn keep_only(&self, snapshot: &Snapshot) {
        let upstream: HashSet<u64> =
            snapshot.clusters().flat_map(|cluster| cluster.transport.contexts()).map(|tls| tls.fingerprint).collect();
        let chains = snapshot.listeners().flat_map(|listener| listener.chains.iter());
        let downstream: HashSet<u64> = chains.filter_map(|chain| Some(chain.tls.as_ref()?.fingerprint)).collect();
        self.clients
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|fingerprint, _| upstream.contains(fingerprint));
        self.servers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|fingerprint, _| downstream.contains(fingerprint));
    }

    /// What is wrong with the TLS contexts of a resource, so that one that cannot be used is refused before it serves.
    pub(crate) fn check(&self, candidate: Candidate<'_>, secrets: SecretsMay) -> Vec<ConfigError> {
        let may_come = |name: &str| {
            secrets == SecretsMay::Come || (self.awaits_workload && [WORKLOAD_CERTIFICATE, MESH_ROOTS].contains(&name))
        };
        let usable = |common: &Common| !common.secrets().any(&may_come);
        let complaint = |resource: &Arc<str>, field: String, checked: Result<(), TlsError>| {
            Some(ConfigError { resource: resource.to_string(), field, reason: checked.err()?.0 })
        };
        match candidate {
            Candidate::Listener(listener) => {
                let contexts = listener.chains.iter().filter_map(|chain| Some((&chain.name, chain.tls.as_deref()?)));
                let contexts = contexts.filter(|(_, tls)| usable(&tls.common));
                let found = contexts.filter_map(|(chain, tls)| {
                    let field = format!("filter chain `{chain}`: transport_socket");
                    complaint(&listener.name, field, self.server(tls).map(drop))
                });
                found.collect()
            }
            Candidate::Secret(name, secret) => {
                let checked = match secret {
                    Secret::Certificate(certificate) => {
                        Identity::read(certificate).and_then(Identity::certified).map(drop)
                    }
                    Secret::Roots { trusted, crl } => material::authorities(trusted, crl.as_ref()).map(drop),
                };
                complaint(&name.into(), String::new(), checked).into_iter().collect()
            }
            Candidate::Cluster(cluster) => {
                let contexts = cluster.transport.contexts().filter(|tls| usable(&tls.common));
                let found = contexts.filter_map(|tls| {
                    complaint(&cluster.name, "transport_socket".to_owned(), self.client(tls).map(drop))
                });
                found.collect()
            }
        }
    }

    fn client(&self, tls: &UpstreamTls) -> Result<Client, TlsError> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = clients.get(&tls.fingerprint) {
            return Ok(known.clone());
        }
        // "Dangerous" is to check by rules of our own: chain and names as the context asks, or nothing where it asks nothing.
        let validation = tls.common.validation.as_ref();
        let authorities = validation.map(|validation| self.authorities(validation)).transpose()?.flatten();
        let verifier: Arc<dyn ServerCertVerifier> =
            Arc::new(Servers::new(authorities, Matched::new(validation), provider()));
        let builder = ClientConfig::builder_with_provider(chosen(&tls.common.parameters))
            .with_protocol_versions(&versions(&tls.common.parameters))
            .map_err(TlsError::new)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier));
        let identity = self.identities(&tls.common)?.into_iter().next();
        let own_uri = identity.as_ref().map(|identity| first_uri(identity.names())).unwrap_or_default().into();
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key).map_err(TlsError::new)?,
        };
        config.alpn_protocols.clone_from(&tls.common.alpn);
        let sessions = Arc::new(Sessions::default());
        config.resumption = Resumption::store(Arc::<Sessions>::clone(&sessions));
        // Beside nothing it is not offered: there are servers that refuse clients whose every protocol is unknown to them.
        let mutual = tls.common.certificates.is_some() && validation.is_some();
        let tunnelling = (self.tunnels && mutual && !config.alpn_protocols.is_empty()).then(|| {
            let mut config = config.clone();
            config.alpn_protocols.insert(0, mux::PROTOCOL.to_vec());
            Arc::new(config)
        });
        let falling_back = config.alpn_protocols.is_empty().then(|| {
            FALLBACKS.map(|protocols| {
                let mut config = config.clone();
                config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
                Arc::new(config)
            })
        });
        let client = Client {
            config: Arc::new(config),
            tunnelling,
            falling_back,
            number: self.built.fetch_add(1, Ordering::Relaxed),
            verifier,
            own_uri,
            sessions,
            validates: tls.common.validation.is_some(),
            from_secrets: tls.common.secrets().next().is_some(),
        };
        clients.insert(tls.fingerprint, client.clone());
        Ok(client)
    }

    fn server(&self, tls: &DownstreamTls) -> Result<Arc<Server>, TlsError> {
        let mut servers = self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = servers.get(&tls.fingerprint) {
            return Ok(Arc::clone(known));
        }
        let builder = ServerConfig::builder_with_provider(chosen(&tls.common.parameters))
            .with_protocol_versions(&versions(&tls.common.parameters))
            .map_err(TlsError::new)?;
        let clients = tls
            .common
            .validation
            .as_ref()
            .map(|validation| self.client_verifier(validation, tls.require_client_certificate));
        let clients = clients.transpose()?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        };
        let identities = self.identities(&tls.common)?;
        let local = Arc::new(identities.first().map(|first| first.names()).unwrap_or_default());
        let mut config = builder.with_cert_resolver(Arc::new(OneOfSeveral::of(identities)?));
        // As in Envoy, who writes a list means its order.
        config.ignore_client_order = tls.common.parameters.suites.is_some();
        config.alpn_protocols.clone_from(&tls.common.alpn);
        let tunnelling = (self.tunnels && tls.require_client_certificate).then(|| {
            let mut config = config.clone();
            config.alpn_protocols = vec![mux::PROTOCOL.to_vec()];
            Arc::new(config)
        });
        let silent = (!config.alpn_protocols.is_empty()).then(|| {
            let mut config = config.clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        });
        let server = Arc::new(Server { config: Arc::new(config), tunnelling, silent, clients, local });
        servers.insert(tls.fingerprint, Arc::clone(&server));
        Ok(server)
    }

    /// Checks clients: their chain, its revocation lists, and what their certificate must be.
    fn client_verifier(
        &self,
        validation: &Validation,
        required: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let authorities = self.authorities(validation)?;
        let authorities =
            authorities.ok_or_else(|| TlsError::new("clients cannot be checked: trusted_ca is not there"))?;
        let wanted = if required { ClientAuth::Required } else { ClientAuth::Optional };
        Ok(Arc::new(Clients::new(authorities, Matched::new(Some(validation)), wanted, provider())))
    }

    /// The workload's certificate, if there is one yet.
    pub(crate) fn workload(&self) -> Option<Arc<Workload>> {
        self.workload.load_full()
    }

    /// What connections to a host of this name (or none) must have in common to share a tunnel; none if a tunnel is not to be
    /// had.
    pub(crate) fn known_as(
        &self,
        tls: &UpstreamTls,
        host: &str,
        names: Option<&ServerNames>,
    ) -> Result<Option<Identities>, TlsError> {
        if !self.tunnels {
            return Ok(None);
        }
        let client = self.client(tls)?;
        let names = Names::of(tls, host, names);
        let (sni, san) = (names.sni.to_owned(), names.san.map(str::to_owned));
        Ok(client.tunnelling.is_some().then_some(Identities { number: client.number, sni, san }))
    }

    /// Secures a connection to an upstream, whose host has this name (or none).
    ///
    /// # Errors
    /// A context that cannot be used, or a failed handshake.
    pub(crate) async fn connect(
        &self,
        tls: &UpstreamTls,
        tcp: Tcp,
        host: &str,
        names: Option<&ServerNames>,
        offer: Offer,
    ) -> Result<Outbound, TlsError> {
        let Client { mut config, tunnelling, falling_back, verifier, sessions, validates, own_uri, .. } =
            self.client(tls)?;
        let other = match offer {
            Offer::Tunnel => tunnelling,
            Offer::For(Payload::Bytes) => None,
            Offer::For(Payload::Http1) => falling_back.map(|[http1, _, _]| http1),
            Offer::For(Payload::Http2) => falling_back.map(|[_, http2, _]| http2),
            Offer::For(Payload::Http) => falling_back.map(|[_, _, either]| either),
        };
        if let Some(other) = other {
            config = other;
        }
        let names = Names::of(tls, host, names);
        if let Some(san) = names.san.filter(|_| validates) {
            let named = Named::new(verifier, san.to_owned());
            Arc::make_mut(&mut config).dangerous().set_certificate_verifier(Arc::new(named));
        }
        let name = if names.sni.is_empty() {
            // The library wants a name; it is neither sent nor looked at.
            Arc::make_mut(&mut config).enable_sni = false;
            ServerName::try_from("localhost".to_owned())
        } else {
            ServerName::try_from(names.sni.to_owned())
        };
        let name = name.map_err(|_| TlsError::new(format!("`{}` cannot be sent as SNI", names.sni)))?;
        let session = UnbufferedClientConnection::new(config, name.clone()).map_err(TlsError::new)?;
        let stream = Secured::handshake(Session::Client(session), tcp, BytesMut::new()).await.map_err(TlsError::new)?;
        let chain = stream.state().peer_certificates().unwrap_or_default();
        if stream.state().handshake_kind() != Some(HandshakeKind::Resumed) {
            sessions.verified(&name, chain);
        }
        let alpn = stream.state().alpn_protocol().map(<[u8]>::to_vec);
        let valid_until = (alpn.as_deref() == Some(mux::PROTOCOL)).then(|| sessions::valid_until(chain)).flatten();
        let peer_uri = chain.first().map(|leaf| first_uri(material::names(leaf))).unwrap_or_default().into();
        let names = Arc::new(UpstreamNames { peer_uri, local_uri: own_uri });
        Ok(Outbound { stream, alpn, valid_until, names })
    }

    /// Ends TLS of a downstream connection, of which `prefix` was read already.
    ///
    /// # Errors
    /// A context that cannot be used, or a failed handshake.
    pub(crate) async fn accept(
        &self,
        tls: &DownstreamTls,
        tcp: Tcp,
        mut prefix: BytesMut,
    ) -> Result<Inbound, TlsError> {
        let server = self.server(tls)?;
        let offered = match (&server.tunnelling, &server.silent) {
            (None, None) => Vec::new(),
            _ => hello::of(&tcp.socket, &mut prefix).await.unwrap_or_default().alpn,
        };
        let (config, tunnelled) = server.for_clients_of(offered);
        let session = UnbufferedServerConnection::new(config).map_err(TlsError::new)?;
        let stream = Secured::handshake(Session::Server(session), tcp, prefix).await.map_err(TlsError::new)?;
        server.check_resumed(stream.state())?;
        let mut peer = peer(stream.state(), &server.local);
        let tunnel = tunnelled.map(|alpn| {
            peer.alpn = alpn;
            let valid_until = sessions::valid_until(stream.state().peer_certificates().unwrap_or_default());
            Terms { server, valid_until }
        });
        Ok(Inbound { stream, peer, tunnel })
    }

    /// Whether a connection that comes through a tunnel now would be accepted on the same terms, by this context.
    pub(crate) fn still_accepts(&self, tls: &DownstreamTls, terms: &Terms) -> bool {
        terms.valid_until.is_some_and(|until| SystemTime::now() < until)
            && self.server(tls).is_ok_and(|server| Arc::ptr_eq(&server, &terms.server))
    }
}

impl Server {
    /// The configuration for clients that offer these protocols; of one that offers a tunnel and gets it, what ALPN would
    /// have settled on otherwise, too.
    fn for_clients_of(&self, mut offered: Vec<Vec<u8>>) -> (Arc<ServerConfig>, Option<Option<Vec<u8>>>) {
        let all = offered.len();
        offered.retain(|protocol| protocol != mux::PROTOCOL);
        let agreed = self.config.alpn_protocols.iter().find(|protocol| offered.contains(protocol)).cloned();
        match (&self.tunnelling, &self.silent) {
            (Some(tunnelling), _) if offered.len() < all => (Arc::clone(tunnelling), Some(agreed)),
            (_, Some(silent)) if agreed.is_none() => (Arc::clone(silent), None),
            _ => (Arc::clone(&self.config), None),
        }
    }

    /// A client whose session was resumed is who it was when that began, if its certificates are still valid.
    fn check_resumed(&self, connection: &CommonState) -> Result<(), TlsError> {
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (true, Some(clients), Some([leaf, more @ ..])) = (resumed, &self.clients, connection.peer_certificates())
        else {
            return Ok(());
        };
        let chain = connection.peer_certificates().unwrap_or_default();
        if sessions::valid_until(chain).is_some_and(|until| SystemTime::now() < until) {
            return Ok(());
        }
        // Among what the client sent may be a certificate that does not matter.
        clients.verify_client_cert(leaf, more, UnixTime::now()).map(drop).map_err(TlsError::new)
    }
}

fn first_uri(names: PeerNames) -> String {
    names.uri_sans.into_iter().next().unwrap_or_default()
}

fn peer(connection: &CommonState, local: &Arc<PeerNames>) -> PeerTls {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    PeerTls {
        has_certificate: certificate.is_some(),
        names: certificate.map_or_else(PeerNames::default, |certificate| material::names(certificate)),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        version: match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: connection.negotiated_cipher_suite().map_or(String::new(), |suite| format!("{:?}", suite.suite())),
        certificate_hash: certificate.map_or(String::new(), |certificate| material::hash(certificate)),
        local: Arc::clone(local),
    }
}

//! What the discovery service serves: admits proxies that are who they say, and translates the mesh for each.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use lateen_mesh::{ProxyKind, Workload};
use lateen_translate::{Cache, Dialect, Named, ProxyView};
use lateen_xds::node::{NodeInfo, ProxyId};
use lateen_xds::server::{Changes, Discovery, Peer, Progress, Proxy, Selection, Variant, View};
use lateen_xds::{Body, References, Resource, type_url};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::authentication::{Authenticator, Caller, ConnectionInfo};
use crate::metrics::{self, Label};
use crate::push::{About, Connected, Proxies, Pushed, Snapshot};

/// What our proxy calls itself.
const OUR_PROXY: &str = "lateen-proxy";

/// Serves the newest snapshot.
pub struct MeshDiscovery {
    pushed: Pushed,
    proxies: Proxies,
    authenticator: Authenticator,
    cache: Arc<Cache>,
}

impl MeshDiscovery {
    pub fn new(pushed: Pushed, proxies: Proxies, authenticator: Authenticator, cache: Arc<Cache>) -> Self {
        Self { pushed, proxies, authenticator, cache }
    }
}

/// Who speaks on a stream.
pub(crate) struct Identified {
    /// What has been proved; nothing on a listener that trusts whoever reaches it.
    pub caller: Option<Caller>,
    /// What the node says, which is not more than that.
    pub id: ProxyId,
    pub workload: Arc<Workload>,
}

/// Who a proxy is that has begun a stream, by what its connection and its request have shown.
///
/// # Errors
/// It is not who it says; or it cannot be told, at present.
pub(crate) async fn identify(
    pushed: &Pushed,
    authenticator: &Authenticator,
    (metadata, connection): (&MetadataMap, Option<&ConnectionInfo>),
    node: &NodeInfo,
) -> Result<Identified, Status> {
    let caller = match authenticator.caller(metadata, connection).await {
        Ok(caller) => Some(caller),
        Err(_) if connection.is_some_and(|it| it.local) && !metadata.contains_key("authorization") => None,
        Err(status) => return Err(status),
    };
    let form = "the node id is not of the form kind~address~pod.namespace~domain";
    let id = node.proxy.clone().ok_or_else(|| Status::invalid_argument(form))?;
    check_claim(caller.as_ref(), &id)?;
    if let Some(bearer) = caller.as_ref().and_then(|caller| caller.pod.as_ref()) {
        pushed.pod_of(bearer).await?;
    }
    let find = |snapshot: &Arc<Snapshot>| snapshot.mesh().workload(&id.namespace, &id.pod).cloned();
    let workload = pushed.wait(find).await;
    let workload =
        workload.ok_or_else(|| Status::unavailable(format!("there is no workload {}/{}", id.namespace, id.pod)))?;
    check_workload(caller.as_ref(), &id, &workload)?;
    Ok(Identified { caller, id, workload })
}

impl Discovery for MeshDiscovery {
    type Snapshot = Arc<Snapshot>;
    type Proxy = MeshProxy;

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.pushed.watch()
    }

    async fn admit(&self, peer: Peer, node: NodeInfo) -> Result<MeshProxy, Status> {
        let refused = |status: Status| {
            tracing::warn!(node = node.id, reason = status.message(), "proxy refused");
            status
        };
        let shown = (&peer.metadata, peer.extensions.get::<ConnectionInfo>());
        let identified = identify(&self.pushed, &self.authenticator, shown, &node).await.map_err(refused)?;
        let Identified { caller, id, workload } = identified;
        let dialect = dialect(&node).map_err(refused)?;
        let kind = if id.kind == "router" { ProxyKind::Gateway } else { ProxyKind::Sidecar };
        let unprivileged = node.text("UNPRIVILEGED_POD") == Some("true");
        let on_demand = node.text("ON_DEMAND") == Some("true");
        let on_demand = on_demand && kind == ProxyKind::Sidecar && dialect == Dialect::Envoy;
        // An Envoy gets ready only when it has virtual hosts, which it asks for only when it is ready.
        if on_demand && (peer.variant, node.user_agent.starts_with(OUR_PROXY)) != (Variant::Delta, true) {
            let reason =
                "virtual hosts are asked for one by one (ON_DEMAND) by lateen-proxy alone, in the delta variant";
            return Err(refused(Status::failed_precondition(reason)));
        }
        let demanded = on_demand.then(Arc::default);
        let about = About {
            id: format!("{}.{}", id.pod, id.namespace),
            kind: id.kind,
            address: id.address.to_string(),
            user_agent: node.user_agent.clone(),
            since: SystemTime::now(),
        };
        tracing::info!(proxy = about.id, agent = about.user_agent, "proxy connected");
        Ok(MeshProxy {
            proven: caller.is_some(),
            view: ProxyView { workload, kind, unprivileged, dialect, demanded },
            namespace: id.namespace,
            pod: id.pod,
            connected: self.proxies.connected(about),
            cache: Arc::clone(&self.cache),
            offered: None,
        })
    }
}

/// Which kind of client it says to be (Istio: `GENERATOR`).
fn dialect(node: &NodeInfo) -> Result<Dialect, Status> {
    match node.text("GENERATOR") {
        None | Some("") => Ok(Dialect::Envoy),
        Some("grpc") => Ok(Dialect::Grpc),
        Some(other) => Err(Status::invalid_argument(format!("there is no generator `{other}` (grpc, or none)"))),
    }
}

/// The node must claim nothing but what the caller has proved.
fn check_claim(caller: Option<&Caller>, id: &ProxyId) -> Result<(), Status> {
    if !matches!(id.kind.as_str(), "sidecar" | "router") {
        return Err(Status::invalid_argument(format!("`{}` is not a kind of proxy (sidecar, router)", id.kind)));
    }
    let Some(caller) = caller else { return Ok(()) };
    if id.namespace != caller.id.namespace() {
        return Err(Status::permission_denied(format!("{} may not speak for namespace {}", caller.id, id.namespace)));
    }
    match &caller.pod {
        Some(bearer) if bearer.pod != id.pod => {
            Err(Status::permission_denied(format!("the token is for pod {}, not {}", bearer.pod, id.pod)))
        }
        _ => Ok(()),
    }
}

/// The workload must be the caller's.
fn check_workload(caller: Option<&Caller>, id: &ProxyId, workload: &Workload) -> Result<(), Status> {
    if let Some(caller) = caller
        && *workload.service_account != *caller.id.service_account()
    {
        return Err(Status::permission_denied(format!(
            "pod {}/{} runs as {}, not as {}",
            id.namespace, id.pod, workload.service_account, caller.id
        )));
    }
    if !workload.addresses.iter().any(|address| address.ip() == Some(id.address)) {
        return Err(Status::permission_denied(format!(
            "pod {}/{} has another address than {}",
            id.namespace, id.pod, id.address
        )));
    }
    let gateway = id.kind == "router";
    if gateway != (workload.proxy == ProxyKind::Gateway) && workload.proxy != ProxyKind::None {
        let kind = if gateway { "sidecar" } else { "gateway" };
        return Err(Status::failed_precondition(format!("pod {}/{} was injected as a {kind}", id.namespace, id.pod)));
    }
    Ok(())
}

/// A proxy with a stream.
pub struct MeshProxy {
    /// The proxy has shown who it is; one on a listener that trusts whoever reaches it has only said so.
    proven: bool,
    view: ProxyView,
    namespace: String,
    pod: String,
    connected: Connected,
    cache: Arc<Cache>,
    /// When the newest configuration was made.
    offered: Option<tokio::time::Instant>,
}

impl Proxy<Arc<Snapshot>> for MeshProxy {
    fn view(&mut self, snapshot: &Arc<Snapshot>) -> Result<Arc<dyn View>, Status> {
        // A pod on its way out is no workload any more, and still has requests to finish: it keeps its last face.
        if let Some(workload) = snapshot.mesh().workload(&self.namespace, &self.pod) {
            self.view.workload = Arc::clone(workload);
        }
        self.offered = Some(snapshot.made);
        Ok(Arc::new(MeshView {
            proven: self.proven,
            snapshot: Arc::clone(snapshot),
            proxy: self.view.clone(),
            cache: Arc::clone(&self.cache),
            push_time: self.connected.metrics().push_time.clone(),
        }))
    }

    fn report(&mut self, progress: &Progress) {
        for rejection in &progress.rejections {
            tracing::debug!(proxy = self.pod, resource = %rejection.resource, reason = rejection.message, "refused");
        }
        self.connected.report(progress, self.offered);
    }
}

/// All resources of one proxy in one snapshot.
#[derive(Clone)]
struct MeshView {
    proven: bool,
    snapshot: Arc<Snapshot>,
    proxy: ProxyView,
    cache: Arc<Cache>,
    push_time: Family<Label, Histogram>,
}

impl View for MeshView {
    fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let since = Instant::now();
        let made = self.make(type_url, selection);
        self.push_time.get_or_create(&metrics::of_type(type_url)).observe(since.elapsed().as_secs_f64());
        made
    }

    fn demanding(&self, hosts: &[Arc<str>]) -> Option<Arc<dyn View>> {
        self.proxy.demanded.as_ref()?;
        let mut hosts = hosts.to_vec();
        hosts.sort_unstable();
        let proxy = ProxyView { demanded: Some(hosts.into()), ..self.proxy.clone() };
        Some(Arc::new(Self { proxy, ..self.clone() }))
    }

    fn changes(&self, type_url: &str, before: &dyn View) -> Changes {
        let Some(before) = (before as &dyn Any).downcast_ref::<Self>() else { return Changes::Anything };
        let (was, is) = ((before.snapshot.mesh(), &before.proxy), (self.snapshot.mesh(), &self.proxy));
        let trust = &self.snapshot.trust;
        let trusts_others = type_url == type_url::SECRET && !Arc::ptr_eq(trust, &before.snapshot.trust);
        match lateen_translate::changes(was, is, type_url) {
            lateen_translate::Changes::Nothing if trusts_others => Changes::Named(vec![Arc::clone(&trust.name)]),
            lateen_translate::Changes::Nothing => Changes::Nothing,
            lateen_translate::Changes::Named(names) if !trusts_others => Changes::Named(names),
            lateen_translate::Changes::Named(_) => Changes::Anything,
            lateen_translate::Changes::Anything => Changes::Anything,
        }
    }
}

impl MeshView {
    fn make(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let trust = &self.snapshot.trust;
        let is_trust = |name: &Arc<str>| type_url == type_url::SECRET && **name == *trust.name;
        let mut roots = Vec::new();
        if let Selection::Named(names) = selection
            && names.iter().any(is_trust)
        {
            roots.push(resource(Arc::clone(trust)));
        }
        // Private keys are for nobody who merely claims a name (Istio gives no secrets to unauthenticated proxies either).
        if type_url == type_url::SECRET && !self.proven {
            return roots;
        }
        let mesh = self.snapshot.mesh();
        let named = match selection {
            Selection::All => lateen_translate::resources(mesh, &self.proxy, type_url, &self.cache),
            Selection::Named(names) => {
                let names: Vec<String> = names.iter().filter(|name| !is_trust(name)).map(ToString::to_string).collect();
                lateen_translate::resources_named(mesh, &self.proxy, type_url, &names, &self.cache)
            }
        };
        roots.extend(named.into_iter().map(resource));
        roots
    }
}

fn resource(named: Arc<Named>) -> Resource {
    let stand_in = named.stand_in;
    let resource = Resource::new(Arc::clone(&named.name), named.version, Encoded(named));
    if stand_in { resource.standing_in() } else { resource }
}

/// The translated resource, kept once for all proxies that get it.
struct Encoded(Arc<Named>);

impl Body for Encoded {
    fn type_url(&self) -> &str {
        self.0.type_url
    }

    fn pieces(&self) -> &[Arc<[u8]>] {
        &self.0.pieces
    }

    fn references(&self) -> &OnceLock<References> {
        &self.0.references.0
    }
}

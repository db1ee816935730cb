//! A discovery server whose configuration a test replaces, and a proxy that follows it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::google::protobuf::Any;
use lateen_testing::eventually::eventually;
use lateen_xds::Resource;
use lateen_xds::node::NodeInfo;
use lateen_xds::server::{Discovery, Limits, Live, Peer, Progress, Selection, Service, View};
use prost::{Message, Name};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use crate::proxy::Proxy;

pub(crate) const ADS: &str = "{ads: {}, resource_api_version: V3}";

/// Everything at one revision: type URL and name → encoded message.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    revision: u64,
    resources: BTreeMap<(String, String), Any>,
}

impl World {
    fn with<M: Message + Name + Default>(mut self, name: &str, yaml: &str) -> Self {
        let message: M = lateen_xds::json::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
        let any = Any { type_url: M::type_url(), value: message.encode_to_vec() };
        self.resources.insert((any.type_url.clone(), name.to_owned()), any);
        self
    }

    pub(crate) fn without<M: Name>(mut self, name: &str) -> Self {
        let gone = self.resources.remove(&(M::type_url(), name.to_owned()));
        assert!(gone.is_some(), "there is no {name}");
        self
    }

    /// A cluster with one host, which comes by EDS; `fields` are YAML in flow style.
    pub(crate) fn cluster(self, name: &str, host: SocketAddr, fields: &str) -> Self {
        let cluster = format!(
            "{{name: {name}, type: EDS, connect_timeout: 5s, eds_cluster_config: {{eds_config: {ADS}}}, {fields}}}"
        );
        let endpoints = format!(
            "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
             {{address: {}, port_value: {}}}}}}}}}]}}]}}",
            host.ip(),
            host.port()
        );
        self.with::<Cluster>(name, &cluster).with::<ClusterLoadAssignment>(name, &endpoints)
    }

    /// A route table that sends everything to one cluster.
    pub(crate) fn routes(self, name: &str, cluster: &str) -> Self {
        self.table(name, &format!("match: {{prefix: /}}, route: {{cluster: {cluster}}}"))
    }

    /// A route table with one route.
    pub(crate) fn table(self, name: &str, route: &str) -> Self {
        let table = format!("{{name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{{route}}}]}}]}}");
        self.with::<RouteConfiguration>(name, &table)
    }

    /// A route table whose virtual hosts come when they are asked for.
    pub(crate) fn empty_table(self, name: &str) -> Self {
        self.with::<RouteConfiguration>(
            name,
            &format!("{{name: {name}, vhds: {{config_source: {ADS}}}, ignore_port_in_host_matching: true}}"),
        )
    }

    /// A virtual host of such a table that sends everything for its domain to one cluster.
    pub(crate) fn virtual_host(self, name: &str, domain: &str, cluster: &str) -> Self {
        let route = format!("{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}");
        self.with::<VirtualHost>(name, &format!("{{name: {name}, domains: [{domain}], routes: [{route}]}}"))
    }

    pub(crate) fn secret(self, name: &str, secret: &str) -> Self {
        self.with::<Secret>(name, secret)
    }

    /// A listener on a port of the kernel's choice.
    pub(crate) fn listener(self, name: &str, chains: &[String]) -> Self {
        self.listener_with(name, chains, "")
    }

    /// The same with fields of its own.
    pub(crate) fn listener_with(self, name: &str, chains: &[String], fields: &str) -> Self {
        let listener = format!(
            "{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{}], \
             {fields}}}",
            chains.join(", ")
        );
        self.with::<Listener>(name, &listener)
    }
}

/// A filter chain with routes by RDS; `fields` are of the connection manager.
pub(crate) fn http(routes: &str, fields: &str) -> String {
    filtered("", routes, fields)
}

/// The same, asking for virtual hosts that are not there; `filters` come behind that, each with a comma.
pub(crate) fn http_on_demand(routes: &str, filters: &str) -> String {
    let asks = "{name: on_demand, typed_config: {'@type': type.googleapis.com/\
                envoy.extensions.filters.http.on_demand.v3.OnDemand}}, ";
    filtered(&format!("{asks}{filters}"), routes, "")
}

/// The same, with HTTP filters before the router, each followed by a comma.
pub(crate) fn filtered(filters: &str, routes: &str, fields: &str) -> String {
    format!(
        "{{filters: [{{name: hcm, typed_config: {{'@type': type.googleapis.com/\
         envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: http, \
         rds: {{route_config_name: {routes}, config_source: {ADS}}}, http_filters: [{filters}{{name: router, typed_config: \
         {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], {fields}}}}}]}}"
    )
}

/// A filter chain that copies bytes.
pub(crate) fn tcp(cluster: &str) -> String {
    format!(
        "{{filters: [{{name: tcp, typed_config: {{'@type': type.googleapis.com/\
         envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: {cluster}}}}}]}}"
    )
}

impl View for World {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource> {
        let of_type = self.resources.iter().filter(|((of, _), _)| of == type_url);
        let selected = of_type.filter(|((_, name), _)| match selection {
            Selection::All => true,
            Selection::Named(names) => names.iter().any(|wanted| **wanted == **name),
        });
        let resource = |((_, name), any): (&(String, String), &Any)| {
            let mut hasher = DefaultHasher::new();
            any.value.hash(&mut hasher);
            Resource::of_any(name.as_str(), hasher.finish(), any.clone())
        };
        selected.map(resource).collect()
    }
}

/// A server for one configuration, which can be replaced.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    worlds: watch::Sender<Arc<World>>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves what there is at revision 1.
    pub(crate) async fn start(world: World) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), World { revision: 1, ..world }).await
    }

    async fn start_at(address: SocketAddr, world: World) -> Self {
        // A port that was used before may for a moment be a client's.
        let listener = eventually("the address can be bound", async || TcpListener::bind(address).await.ok()).await;
        let address = listener.local_addr().expect("it is bound");
        let worlds = watch::Sender::new(Arc::new(world));
        let (reports, progress) = watch::channel(Progress::default());
        let service = Service::new(Source { worlds: worlds.subscribe(), reports }, Limits::default()).into_server();
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.expect("it serves until it is dropped") });
        Self { address, worlds, progress, task }
    }

    /// Hands out another configuration; its revision.
    pub(crate) fn publish(&self, world: World) -> u64 {
        let revision = self.worlds.borrow().revision + 1;
        self.worlds.send_replace(Arc::new(World { revision, ..world }));
        revision
    }

    /// Waits until a revision is in force at the proxy.
    pub(crate) async fn live(&self, revision: u64) {
        eventually(&format!("revision {revision} is live: {:?}", self.progress), async || {
            matches!(self.progress.borrow().of(revision), Live::Yes).then_some(())
        })
        .await;
    }

    /// Publishes, and waits until it is in force.
    pub(crate) async fn apply(&self, world: World) {
        self.live(self.publish(world)).await;
    }

    /// Publishes what the proxy is to refuse; its words.
    pub(crate) async fn refused(&self, world: World) -> String {
        let revision = self.publish(world);
        eventually("the proxy answers", async || (self.progress.borrow().settled >= revision).then_some(())).await;
        match self.progress.borrow().of(revision) {
            Live::Rejected(refused) => refused.iter().map(|it| it.message.as_str()).collect::<Vec<_>>().join("\n"),
            Live::Yes | Live::NotYet => panic!("it was taken"),
        }
    }

    /// What the proxy has refused of what it asked for, once it has: names and words.
    pub(crate) async fn refusals(&self) -> String {
        let refused =
            || self.progress.borrow().rejections.iter().map(|it| format!("{}: {}", it.resource, it.message)).collect();
        eventually("something is refused", async || Some(refused()).filter(|refused: &Vec<String>| !refused.is_empty()))
            .await
            .join("\n")
    }

    /// How many resources have been sent on the streams there were.
    pub(crate) fn given(&self) -> usize {
        self.progress.borrow().types.iter().map(|of| of.resources).sum()
    }

    /// Ends all streams, and refuses new ones.
    pub(crate) async fn stop(self) -> Stopped {
        self.task.abort();
        let _ = self.task.await;
        let world = World::clone(&self.worlds.borrow());
        Stopped { address: self.address, world }
    }
}

/// A server that is gone, and may come back.
pub(crate) struct Stopped {
    address: SocketAddr,
    world: World,
}

impl Stopped {
    pub(crate) async fn start(self) -> Server {
        let revision = self.world.revision + 1;
        Server::start_at(self.address, World { revision, ..self.world }).await
    }
}

struct Source {
    worlds: watch::Receiver<Arc<World>>,
    reports: watch::Sender<Progress>,
}

struct Known(watch::Sender<Progress>);

impl Discovery for Source {
    type Snapshot = Arc<World>;
    type Proxy = Known;

    fn snapshots(&self) -> watch::Receiver<Arc<World>> {
        self.worlds.clone()
    }

    async fn admit(&self, _: Peer, _: NodeInfo) -> Result<Known, Status> {
        Ok(Known(self.reports.clone()))
    }
}

impl lateen_xds::server::Proxy<Arc<World>> for Known {
    fn view(&mut self, world: &Arc<World>) -> Result<Arc<dyn View>, Status> {
        Ok(Arc::clone(world) as Arc<dyn View>)
    }

    fn report(&mut self, progress: &Progress) {
        self.0.send_replace(progress.clone());
    }
}

/// A proxy that follows the server at an address.
pub(crate) async fn follower(server: SocketAddr) -> Proxy {
    speaking("DELTA_GRPC", server).await
}

/// The same, cutting no connection that goes on under rules of the past.
pub(crate) async fn patient_follower(server: SocketAddr) -> Proxy {
    Proxy::run_without_cuts(|_| following("DELTA_GRPC", server)).await
}

/// The same by the named form of the protocol.
pub(crate) async fn speaking(api_type: &str, server: SocketAddr) -> Proxy {
    Proxy::run(|_| following(api_type, server)).await
}

/// A proxy that follows the server at an address, with variables in its environment.
pub(crate) async fn follower_in(environment: &[(&str, &str)], server: SocketAddr) -> Proxy {
    Proxy::run_in(None, environment, |_| following("DELTA_GRPC", server)).await
}

fn following(api_type: &str, server: SocketAddr) -> String {
    format!(
        r#"
node: {{id: sidecar~127.0.0.1~test.test~test.svc.cluster.local, cluster: test}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config: {{api_type: {api_type}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  cds_config: {ADS}
  lds_config: {ADS}
static_resources:
  clusters:
  - {{name: xds, type: STATIC, connect_timeout: 5s,
      typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}},
      load_assignment: {{cluster_name: xds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}
"#,
        server.ip(),
        server.port()
    )
}

//! From a [`Mesh`] and one proxy's view of it to xDS resources: pure functions, one folder per resource type.
//!
//! The output is deterministic: equal meshes give equal bytes, in the same order. Resources that do not depend on the
//! proxy are encoded once and shared through the [`Cache`].

mod authorization_view;
mod cache;
mod changes;
mod cluster;
mod endpoint;
mod filters;
mod grpc;
mod listener;
pub mod names;
mod origin;
mod proto;
mod provider;
mod route;
mod secret;
mod telemetry;
mod tls;
mod view;
pub mod wire;

use std::sync::{Arc, OnceLock};

use envoy_types::pb::google::protobuf::Any;
use lateen_mesh::Mesh;
use prost::{Message, Name};

pub use authorization_view::{AuthorizationView, EffectivePolicy, EffectiveRule, EncodedListener};
pub use cache::Cache;
pub use changes::{Changes, changes};
pub use secret::mesh_roots;
pub use view::{Dialect, ProxyView};

use view::View;

/// The type URLs of the resources made here.
pub mod type_url {
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

    /// Of a message that is a resource.
    pub(crate) fn of<M: prost::Name>() -> &'static str {
        let of_name = |url: &&&str| url.rsplit('/').next() == Some(&M::full_name());
        [CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, SECRET]
            .iter()
            .find(of_name)
            .expect("the messages made here are resources")
    }
}

/// Whoever asks for more names than this is given them out of a list of all, which is the same for many proxies.
const FEW: usize = 64;

/// One xDS resource, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    pub name: Arc<str>,
    pub type_url: &'static str,
    /// The encoded message, one piece after the other; others may have some of them too.
    pub pieces: Box<[Arc<[u8]>]>,
    /// Of the encoded bytes: equal versions are equal resources.
    pub version: u64,
    pub references: Remembered,
    /// There is no such thing (any more): this is for a proxy that asks for it and would wait for ever.
    pub stand_in: bool,
}

/// Room for whoever sends a resource to note what it refers to; part of no comparison.
#[derive(Debug, Clone, Default)]
pub struct Remembered(pub OnceLock<Box<[Arc<str>]>>);

impl PartialEq for Remembered {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Named {
    pub(crate) fn new<M: Message + Name>(name: &str, message: &M) -> Self {
        Self::of_pieces(name, type_url::of::<M>(), Box::new([wire::encode(message).into()]))
    }

    pub(crate) fn of_pieces(name: &str, type_url: &'static str, pieces: Box<[Arc<[u8]>]>) -> Self {
        let mut version = xxhash_rust::xxh64::Xxh64::new(0);
        pieces.iter().for_each(|piece| version.update(piece));
        Self {
            name: name.into(),
            type_url,
            pieces,
            version: version.digest(),
            references: Remembered::default(),
            stand_in: false,
        }
    }

    /// The same, for something that does not exist.
    pub(crate) fn standing_in<M: Message + Name>(name: &str, message: &M) -> Self {
        Self { stand_in: true, ..Self::new(name, message) }
    }

    pub fn to_any(&self) -> Any {
        Any { type_url: self.type_url.to_owned(), value: self.pieces.concat() }
    }
}

/// All resources of a type that the proxy should have, sorted by name; none for types that are not made here.
///
/// Of endpoints and routes these are the ones that the proxy's clusters and listeners name.
pub fn resources(mesh: &Mesh, proxy: &ProxyView, type_url: &str, cache: &Cache) -> Vec<Arc<Named>> {
    let scope = mesh.scope_of(&proxy.workload, proxy.kind);
    let view = View { mesh, proxy, scope: &scope };
    if proxy.dialect == Dialect::Grpc {
        // It never asks for all there is.
        return Vec::new();
    }
    let mut resources = match type_url {
        type_url::CLUSTER => cluster::all(&view, cache),
        type_url::LISTENER => listener::all(&view, cache),
        type_url::ENDPOINT => {
            // One list for many proxies, and what is of this one alone.
            let own = cluster::discovered_by_itself(&view);
            let own = own.iter().filter_map(|name| endpoint::by_name(&view, cache, name));
            endpoint::all(&view, cache).iter().cloned().chain(own).collect()
        }
        type_url::ROUTE => {
            let names = listener::route_tables(&view);
            names.iter().filter_map(|name| route::by_name(&view, cache, name)).collect()
        }
        type_url::VIRTUAL_HOST => {
            let names = proxy.demanded.iter().flat_map(|names| names.iter());
            route::on_demand::by_names(&view, cache, names.map(|name| &**name))
        }
        type_url::SECRET => secret::all(&view),
        _ => Vec::new(),
    };
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    resources
}

/// The endpoints, routes or virtual hosts of these names, as far as they exist, in the order asked for.
///
/// Endpoints or a route table that the proxy asks for and that do not exist (any more) are empty, not absent: a cluster or
/// listener that waits for them would wait for ever.
pub fn resources_named(
    mesh: &Mesh,
    proxy: &ProxyView,
    type_url: &str,
    names: &[String],
    cache: &Cache,
) -> Vec<Arc<Named>> {
    let scope = mesh.scope_of(&proxy.workload, proxy.kind);
    let view = View { mesh, proxy, scope: &scope };
    if proxy.dialect == Dialect::Grpc {
        return grpc::named(&view, cache, type_url, names);
    }
    match type_url {
        type_url::ENDPOINT if names.len() > FEW => endpoint::by_names(&view, cache, names),
        type_url::ENDPOINT => names.iter().filter_map(|name| endpoint::by_name(&view, cache, name)).collect(),
        type_url::ROUTE => names.iter().filter_map(|name| route::by_name(&view, cache, name)).collect(),
        type_url::VIRTUAL_HOST if view.asks_for_hosts() => {
            route::on_demand::by_names(&view, cache, names.iter().map(String::as_str))
        }
        _ => {
            let all = resources(mesh, proxy, type_url, cache);
            names.iter().filter_map(|name| all.iter().find(|named| *named.name == **name).cloned()).collect()
        }
    }
}

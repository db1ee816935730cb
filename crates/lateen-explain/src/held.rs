//! What one proxy holds, compiled as the proxy compiles it. Only what a question is about is: of a thousand clusters, a request
//! needs two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::config::listener::{Direction, Listener};
use lateen_engine::config::{Cluster, ConfigError, EndpointSet, Resources, Snapshot};
use lateen_mesh::Mesh;
use lateen_translate::{Cache, Named, ProxyView, names, resources, type_url};

/// The resources of a proxy.
#[derive(Debug)]
pub(crate) struct Held {
    listeners: Vec<Arc<Named>>,
    clusters: Vec<Arc<Named>>,
    routes: Vec<Arc<Named>>,
    endpoints: Vec<Arc<Named>>,
    /// What was compiled for earlier questions.
    snapshots: RefCell<HashMap<(bool, u16), Rc<Snapshot>>>,
}

/// A cluster, and its hosts.
pub(crate) type WithHosts = (Arc<Cluster>, Arc<EndpointSet>);

/// A resource that does not compile: what a proxy refuses, too.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl From<Vec<ConfigError>> for Refused {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

impl Held {
    pub(crate) fn of(mesh: &Mesh, proxy: &ProxyView, cache: &Cache) -> Self {
        let all = |type_url| resources(mesh, proxy, type_url, cache);
        Self {
            listeners: all(type_url::LISTENER),
            clusters: all(type_url::CLUSTER),
            routes: all(type_url::ROUTE),
            endpoints: all(type_url::ENDPOINT),
            snapshots: RefCell::default(),
        }
    }

    /// Clusters, endpoints, listeners and routes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Named>> {
        [&self.clusters, &self.endpoints, &self.listeners, &self.routes].into_iter().flatten()
    }

    /// The listeners of one direction that a connection to this port can come to, with their route tables.
    pub(crate) fn snapshot(&self, direction: Direction, port: u16) -> Result<Rc<Snapshot>, Refused> {
        let key = (direction == Direction::Inbound, port);
        if let Some(known) = self.snapshots.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let snapshot = Rc::new(self.compile(direction, port)?);
        self.snapshots.borrow_mut().insert(key, Rc::clone(&snapshot));
        Ok(snapshot)
    }

    fn compile(&self, direction: Direction, port: u16) -> Result<Snapshot, Refused> {
        let mut taken = Resources::default();
        // A listener's name ends in its port, but for the two that take what is redirected.
        let suffix = format!("_{port}");
        let of_port = |named: &&Arc<Named>| {
            named.name.ends_with(&suffix) || [names::VIRTUAL_OUTBOUND, names::VIRTUAL_INBOUND].contains(&&*named.name)
        };
        for named in self.listeners.iter().filter(of_port) {
            take(&mut taken, named)?;
        }
        for named in self.named(&self.routes, taken.wanted().routes.iter().map(|name| &**name)) {
            take(&mut taken, named)?;
        }
        let snapshot = taken.link(&Snapshot::default());
        let others: Vec<Arc<str>> = snapshot
            .listeners()
            .filter(|listener| listener.direction != direction)
            .map(|listener| Arc::clone(&listener.name))
            .collect();
        if others.is_empty() {
            return Ok(snapshot);
        }
        others.iter().for_each(|name| taken.remove(type_url::LISTENER, name));
        Ok(taken.link(&Snapshot::default()))
    }

    /// A cluster with its hosts; none, if the proxy has no such cluster.
    pub(crate) fn cluster(&self, name: &str) -> Result<Option<WithHosts>, Refused> {
        let Some(named) = self.named(&self.clusters, [name]).next() else { return Ok(None) };
        let mut taken = Resources::default();
        take(&mut taken, named)?;
        let wanted = taken.wanted();
        for service in &wanted.endpoints {
            match self.named(&self.endpoints, [&**service]).next() {
                Some(endpoints) => take(&mut taken, endpoints)?,
                // The proxy is told that there are none.
                None => taken.remove(type_url::ENDPOINT, service),
            }
        }
        let snapshot = taken.link(&Snapshot::default());
        Ok(snapshot.cluster(name).map(|cluster| (Arc::clone(cluster), Arc::clone(snapshot.endpoints(cluster)))))
    }

    fn named<'a, 'n>(
        &self,
        list: &'a [Arc<Named>],
        names: impl IntoIterator<Item = &'n str>,
    ) -> impl Iterator<Item = &'a Arc<Named>> {
        // Lists are sorted by name.
        let find = |name: &str| list.binary_search_by(|named| (*named.name).cmp(name)).ok().map(|at| &list[at]);
        names.into_iter().filter_map(find).collect::<Vec<_>>().into_iter()
    }
}

fn take(resources: &mut Resources, named: &Named) -> Result<(), Refused> {
    Ok(resources.upsert(named.type_url, &named.name, &named.to_any(), |_| Ok(()))?)
}

/// The listener that a redirected connection belongs to: of its original destination, else the one that accepted it.
pub(crate) fn redirected<'a>(snapshot: &'a Snapshot, accepts: &str, to: SocketAddr) -> Option<&'a Arc<Listener>> {
    let accepted = snapshot.listener(accepts)?;
    let owner = if accepted.use_original_dst { snapshot.listener_for_original_dst(to) } else { None };
    Some(owner.unwrap_or(accepted))
}

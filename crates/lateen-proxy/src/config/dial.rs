//! Connections to the discovery server that a bootstrap names: a cluster as any other, of which one host after the other is
//! tried.

use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use lateen_engine::config::cluster::Cluster;
use lateen_engine::config::endpoint::{Endpoint, Health, HostAddress};
use lateen_engine::message::Headers;
use lateen_xds::client::{Connect, ConnectError, Connection, channel};
use lateen_xds::server::Variant;
use tonic::transport;

use crate::telemetry::failure::{Failure, FailureKind};
use crate::tls::Offer;
use crate::upstream::connect::{Payload, reach};
use crate::worker::Shared;

/// Connects to a discovery server.
pub(crate) struct Dial {
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    authority: String,
    variant: Variant,
    /// Which host is next.
    turn: usize,
}

impl Dial {
    pub(crate) fn new(shared: Arc<Shared>, cluster: Arc<Cluster>, authority: String, variant: Variant) -> Self {
        Self { shared, cluster, authority, variant, turn: 0 }
    }

    /// The next host, of those that have an address.
    fn host(&mut self) -> Result<Arc<Endpoint>, ConnectError> {
        let resolved = self.shared.resolved.load();
        let set = resolved.get(&self.cluster.name).unwrap_or(&self.cluster.endpoints);
        let usable =
            |host: &&Arc<Endpoint>| host.health != Health::Unhealthy && matches!(host.address, HostAddress::Socket(_));
        let hosts: Vec<_> = set.endpoints().filter(usable).collect();
        if hosts.is_empty() {
            return Err(ConnectError(format!("the cluster {} has no host", self.cluster.name)));
        }
        let host = Arc::clone(hosts[self.turn % hosts.len()]);
        self.turn = self.turn.wrapping_add(1);
        Ok(host)
    }
}

impl Connect for Dial {
    fn variant(&self) -> Variant {
        self.variant
    }

    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let host = self.host()?;
        let names = self.cluster.auto_names.as_ref().map(|auto| auto.of(&Headers::default(), &self.authority));
        let reaching = reach(&self.shared, &self.cluster, &host, names.as_ref(), Offer::For(Payload::Http2));
        let dialled = tokio::time::timeout(self.cluster.connect_timeout, reaching)
            .await
            .unwrap_or_else(|_| Err(Failure::new(FailureKind::ConnectTimeout)))
            .map_err(|failure| ConnectError(format!("{}: {}", host.address, told(&failure))))?;
        let mut endpoint = transport::Endpoint::try_from(format!("http://{}", self.authority))?;
        if let Some((interval, timeout)) = self.cluster.http2.keepalive {
            endpoint = endpoint.http2_keep_alive_interval(interval).keep_alive_timeout(timeout);
            endpoint = endpoint.keep_alive_while_idle(true);
        }
        // A second connection is not to be had here: the client comes back for it.
        let wire = Mutex::new(Some(dialled.wire));
        let given = move || {
            let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
            ready(wire.ok_or_else(|| io::ErrorKind::NotConnected.into()))
        };
        let channel = channel::over(endpoint, given).await?;
        Ok(Connection { channel, authorization: None })
    }
}

fn told(failure: &Failure) -> String {
    failure.transport.clone().unwrap_or_else(|| format!("{:?}", failure.kind))
}

//! What a proxy of a mesh is told by its environment (Istio's names), and the node it presents itself as.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use lateen_identity::SpiffeId;
use lateen_xds::client::{self, Backoff};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::arguments::Role;
use super::env;
use crate::admin::app_health::Probers;
use crate::admin::application::Application;
use crate::admin::health::{self, Health};
use crate::admin::ports;
use crate::config::Applier;
use crate::identity::{self, ControlPlane, Sockets};
use crate::live::{self, Showing};

/// A proxy's place in the mesh.
#[derive(Debug)]
pub(super) struct Membership {
    pub id: SpiffeId,
    pub node: Node,
    /// Discovery, and the certificate authority.
    pub discovery: ControlPlane,
    pub authority: ControlPlane,
    /// How long certificates are asked for.
    pub validity: Duration,
    pub sockets: Sockets,
    /// Whose metrics are given together with the proxy's.
    pub application: Option<Application>,
    pub status_port: u16,
    /// How the app is, for whoever cannot ask itself.
    pub probers: Option<Arc<Probers>>,
}

impl Membership {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that is missing or makes no sense, by its name.
    pub(super) fn from_environment(role: &Role) -> anyhow::Result<Self> {
        let namespace = required(env::POD_NAMESPACE)?;
        let account = env::variable(env::SERVICE_ACCOUNT).filter(|name| !name.is_empty());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let trust_domain = env::variable(env::TRUST_DOMAIN).unwrap_or_else(|| "cluster.local".to_owned());
        let id = SpiffeId::new(&trust_domain, &namespace, &account)?;
        let discovery = env::variable(env::DISCOVERY).unwrap_or_else(|| "lateend.istio-system.svc:15012".to_owned());
        let authority = env::variable(env::CA_ADDRESS).unwrap_or_else(|| discovery.clone());
        let control_plane = |address: String| ControlPlane {
            address,
            token: PathBuf::from("/var/run/secrets/tokens/istio-token"),
            roots: PathBuf::from("/var/run/secrets/istio/root-cert.pem"),
            learned: None,
        };
        Ok(Self {
            node: node(role, &namespace, &account)?,
            id,
            discovery: control_plane(discovery),
            authority: control_plane(authority),
            validity: env::variable(env::SECRET_TTL).map_or(Ok(identity::VALIDITY), |text| validity(&text))?,
            sockets: Sockets::of_member()?,
            application: Application::from_environment()?,
            status_port: env::variable(env::STATUS_PORT).map_or(Ok(ports::AGENT), |text| status_port(&text))?,
            probers: Probers::from_environment()?,
        })
    }
}

impl Membership {
    /// Serves health and metrics, then gets a certificate, then the configuration, and keeps both up to date. Returns once
    /// all of it is under way.
    ///
    /// # Errors
    /// Ports that cannot be listened on.
    pub(super) async fn start(mut self, applier: Applier) -> anyhow::Result<()> {
        let shared = applier.shared();
        for control_plane in [&mut self.discovery, &mut self.authority] {
            control_plane.learned = Some((Arc::clone(shared), self.id.trust_domain().to_owned()));
        }
        let (certified, mut certificate) = watch::channel(false);
        let own = Health::new(Arc::clone(shared), certificate.clone());
        let asked = own.clone().with_application(self.application.take()).with_probers(self.probers.take());
        let (own, asked) = (Arc::new(own), Arc::new(asked));
        for (port, health) in [(ports::HEALTH, &own), (ports::METRICS, &own), (self.status_port, &asked)] {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            tokio::spawn(health::serve(listener, Arc::clone(health)));
        }
        if let Some(place) = self.sockets.give {
            identity::give(place, shared)?;
        }
        match self.sockets.take {
            Some(path) => {
                let taking = identity::take(path, self.node.clone(), Some(self.id), Arc::clone(shared), certified);
                tokio::spawn(taking);
            }
            None => {
                let kept = identity::keep(self.id, self.validity, self.authority, Arc::clone(shared), certified);
                tokio::spawn(kept);
            }
        }
        let (node, (discovery, links)) = (self.node, Showing::new(self.discovery));
        tokio::spawn(live::tell(node.clone(), links, Arc::clone(shared)));
        tokio::spawn(async move {
            // Listeners need the certificate: without it they could only refuse.
            if certificate.wait_for(|there| *there).await.is_ok() {
                let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
                client::run(node, discovery, applier, backoff).await;
            }
        });
        Ok(())
    }
}

/// A port that is not one of the proxy's others.
fn status_port(text: &str) -> anyhow::Result<u16> {
    match text.parse() {
        Ok(port) if port > 0 && port != ports::HEALTH && port != ports::METRICS => Ok(port),
        _ => Err(anyhow!("{}={text} is no port that is left for it", env::STATUS_PORT)),
    }
}

/// A time as Go writes it; at least a second.
fn validity(text: &str) -> anyhow::Result<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed
        .filter(|time| time.as_secs() > 0)
        .ok_or_else(|| anyhow!("{}={text} is no time of a second or more, such as 24h", env::SECRET_TTL))
}

fn required(name: &str) -> anyhow::Result<String> {
    env::variable(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| anyhow!("the environment variable {name} is not set"))
}

/// Istio's form of a node: `kind~address~pod.namespace~namespace.svc.cluster.local`, and what is known of the workload.
fn node(role: &Role, namespace: &str, account: &str) -> anyhow::Result<Node> {
    let (pod, address) = (required(env::POD_NAME)?, required(env::INSTANCE_IP)?);
    let kind = match role {
        Role::Router => "router",
        Role::Sidecar | Role::Request { .. } | Role::Wait { .. } => "sidecar",
    };
    let mut metadata = HashMap::from([
        ("NAME".to_owned(), text(&pod)),
        ("NAMESPACE".to_owned(), text(namespace)),
        ("SERVICE_ACCOUNT".to_owned(), text(account)),
        ("INSTANCE_IPS".to_owned(), text(&address)),
        // Istio's bootstrap tells so too: ports below 1024 cannot be listened on.
        ("UNPRIVILEGED_POD".to_owned(), text(if is_root() { "false" } else { "true" })),
    ]);
    metadata.extend(env::mesh_metadata().map(|(name, value)| (name, text(&value))));
    let mut place = None;
    if let Some(labels) = env::variable(env::LABELS) {
        let labels: HashMap<String, String> =
            serde_json::from_str(&labels).with_context(|| format!("{} is no JSON object of texts", env::LABELS))?;
        place = locality(&labels);
        let fields = labels.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        metadata.insert("LABELS".to_owned(), value(Kind::StructValue(Struct { fields })));
    }
    let workload = metadata.get("WORKLOAD_NAME").and_then(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    });
    Ok(Node {
        id: format!("{kind}~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{}.{namespace}", workload.unwrap_or(pod)),
        metadata: Some(Struct { fields: metadata }),
        locality: place,
        user_agent_name: super::USER_AGENT.to_owned(),
        user_agent_version_type: Some(super::user_agent_version()),
        ..Node::default()
    })
}

/// Where the pod's labels say that it runs: one label for all of it, with dots or slashes, or those that Kubernetes copies from
/// the machine (as the control plane reads them).
fn locality(labels: &HashMap<String, String>) -> Option<Locality> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let whole = label("topology.istio.io/locality").or_else(|| label("istio-locality"));
    let [region, zone, sub_zone] = match whole {
        Some(whole) => {
            let mut parts = whole.split(if whole.contains('/') { '/' } else { '.' });
            std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned())
        }
        None => ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"]
            .map(|name| label(name).unwrap_or_default().to_owned()),
    };
    (!region.is_empty()).then_some(Locality { region, zone, sub_zone })
}

/// A process owns its entry in /proc as its effective user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, seconds) in [("24h0m0s", 24 * 3600), ("90s", 90), ("1h30m", 5400), ("1m", 60)] {
            assert_eq!(validity(text).expect(text).as_secs(), seconds, "{text}");
        }
        for text in ["", "24", "-1h", "0s", "10ms", "soon"] {
            assert!(validity(text).is_err(), "{text}");
        }
    }
}

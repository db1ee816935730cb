//! The environment variables that the proxy reads, all of them.

/// SO_MARK for upstream sockets: redirect rules exempt what carries it. Needed where the proxy has no uid of its own.
pub const SOCKET_MARK: &str = "LATEEN_SOCKET_MARK";
/// `off`: connections between proxies of this kind are not put into tunnels, as they are unless told so (`on`).
pub const TUNNELS: &str = "LATEEN_TUNNELS";
/// A Unix socket at which somebody else gives the workload's identity by SDS: its path, or, as in Istio, its name in
/// `/var/run/secrets/workload-spiffe-uds`. Without it that folder's `socket` is taken if somebody listens there.
pub const IDENTITY_SOCKET: &str = "WORKLOAD_IDENTITY_SOCKET_FILE";
/// The path of a Unix socket at which the workload's identity is given to others by SDS; without it, `socket` in that folder,
/// where there is the folder.
pub const SECRETS_SOCKET: &str = "LATEEN_SECRETS_SOCKET";
/// Whom it is given to besides the proxy's own user and root: numbers of users, with commas between them.
pub const SECRETS_PEERS: &str = "LATEEN_SECRETS_PEERS";
/// The machine's or pod's name, for `%HOSTNAME%`.
pub const HOSTNAME: &str = "HOSTNAME";

// Of a proxy in a mesh, with Istio's names:
pub const POD_NAME: &str = "POD_NAME";
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
pub const INSTANCE_IP: &str = "INSTANCE_IP";
pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
pub const TRUST_DOMAIN: &str = "TRUST_DOMAIN";
/// `host:port` of discovery.
pub const DISCOVERY: &str = "PILOT_DISCOVERY";
/// `host:port` of the certificate authority; discovery's unless given.
pub const CA_ADDRESS: &str = "CA_ADDR";
/// How long certificates are asked for, such as `24h0m0s`.
pub const SECRET_TTL: &str = "SECRET_TTL";
/// Where the application has its own metrics: `{"scrape":"true","path":"/metrics","port":"9090"}`, the pod's annotations.
pub const PROMETHEUS_ANNOTATIONS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Where health, metrics and the probes of the app are asked for; 15020 unless given.
pub const STATUS_PORT: &str = "LATEEN_STATUS_PORT";
/// What is asked of the app on behalf of a kubelet: a JSON object of probes, by the path at which it asks.
pub const APP_PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";
/// The pod's labels, as a JSON object.
pub const LABELS: &str = "LATEEN_LABELS";
/// Attributes of the resource in OTLP, as `name=value,…` (OpenTelemetry's name), where a detector asks for them.
pub const OTEL_RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Variables that start so are the node's metadata, under the rest of their names.
const METADATA: &str = "ISTIO_META_";

/// A variable by its name: for the above, and for what a configuration itself names.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn mesh_metadata() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?.to_owned(), value)))
}

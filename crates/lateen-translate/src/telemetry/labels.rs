//! The labels of Istio's standard metrics, each as a format of Envoy's.
//!
//! Of the workload itself, the bootstrap's node says who it is (`xds.node`), so that what is made here is the same for all
//! proxies. Of its peer, a client knows from the endpoint's metadata (the control plane's word), a server from the subject of
//! the certificate that the client has shown (`lateen_identity::WorkloadName`): for any protocol, with nothing added to requests.

use lateen_mesh::Service;

use super::Side;

/// A label's name, and the format of its value.
pub(super) type Label = (&'static str, String);

/// What there is in place of a value that is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// Of both ends of a request or connection.
pub(super) fn of_peers(side: Side<'_>, http: bool) -> Vec<Label> {
    match side {
        Side::Client | Side::Gateway => {
            let mut labels = vec![("reporter", literal("source"))];
            labels.extend(own(SOURCE, "upstream.uri_san_local_certificate"));
            labels.extend(called_host());
            // What strangers write is no label (Istio: `disable_host_header_fallback`).
            labels.extend(destination_of_client(http && side == Side::Client));
            labels
        }
        Side::Server(service) => {
            let mut labels = vec![("reporter", literal("destination"))];
            labels.extend(calling_peer());
            labels.extend(own(DESTINATION, "connection.uri_san_local_certificate"));
            labels.extend(destination_of_server(service));
            labels
        }
    }
}

/// How a connection ended, and how it was secured: only the server knows of that.
pub(super) fn of_outcome(side: Side<'_>) -> Vec<Label> {
    let security = match side {
        Side::Client | Side::Gateway => literal(UNKNOWN),
        Side::Server(_) => cel("connection.mtls ? 'mutual_tls' : 'none'"),
    };
    vec![("response_flags", "%RESPONSE_FLAGS%".to_owned()), ("connection_security_policy", security)]
}

/// What HTTP adds.
pub(super) fn of_answer() -> Vec<Label> {
    let grpc = "'content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc')";
    vec![
        ("request_protocol", cel(&format!("{grpc} ? 'grpc' : 'http'"))),
        ("response_code", "%RESPONSE_CODE%".to_owned()),
        ("grpc_response_status", "%GRPC_STATUS_NUMBER%".to_owned()),
    ]
}

/// Names of the labels of one end: workload, namespace, principal, app, version, canonical service and revision, cluster.
type Names = [&'static str; 8];

const SOURCE: Names = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
];

const DESTINATION: Names = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];

fn labelled(names: Names, values: [String; 8]) -> impl Iterator<Item = Label> {
    names.into_iter().zip(values)
}

/// A label of the workload itself.
fn node_label(name: &str) -> String {
    format!("xds.node.metadata.LABELS['{name}']")
}

const NODE_WORKLOAD: &str = "xds.node.metadata.WORKLOAD_NAME";
const NODE_NAMESPACE: &str = "xds.node.metadata.NAMESPACE";

fn canonical_service() -> String {
    let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"].map(node_label);
    first_of(&[&labels[0], &labels[1], &labels[2], NODE_WORKLOAD], UNKNOWN)
}

/// The workload that the proxy belongs to.
fn own(names: Names, principal: &str) -> impl Iterator<Item = Label> {
    let revision = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"].map(node_label);
    let [workload, namespace, principal, app, version, cluster] = [
        NODE_WORKLOAD,
        NODE_NAMESPACE,
        principal,
        &node_label("app"),
        &node_label("version"),
        "xds.node.metadata.CLUSTER_ID",
    ]
    .map(|expression| first_of(&[expression], UNKNOWN));
    let revision = first_of(&[&revision[0], &revision[1], &revision[2]], "latest");
    labelled(names, [workload, namespace, principal, app, version, canonical_service(), revision, cluster])
}

/// Who calls, by their certificate.
fn calling_peer() -> impl Iterator<Item = Label> {
    let said = |kind: char| format!("re.capture(connection.subject_peer_certificate, '.*/{kind}:([^/,]+).*')");
    let principal = "connection.uri_san_peer_certificate";
    let values = [
        first_of(&[&said('w')], UNKNOWN),
        first_of(&[&namespace_of(principal)], UNKNOWN),
        first_of(&[principal], UNKNOWN),
        first_of(&[&said('a')], UNKNOWN),
        first_of(&[&said('v')], UNKNOWN),
        first_of(&[&said('c')], UNKNOWN),
        first_of(&[&said('r')], "latest"),
        first_of(&[&said('k')], UNKNOWN),
    ];
    labelled(SOURCE, values)
}

/// Part of what the chosen endpoint's metadata says: workload; namespace; canonical service; revision; cluster; app; version.
fn said_of_host(part: usize) -> String {
    let before = if part == 0 { String::new() } else { format!("(?:[^;]*;){{{part}}}") };
    format!("re.capture(xds.upstream_host_metadata.filter_metadata['istio'].workload, '{before}([^;]+).*')")
}

const HOST_PRINCIPAL: &str = "upstream.uri_san_peer_certificate";

fn called_host() -> impl Iterator<Item = Label> {
    let values = [
        first_of(&[&said_of_host(0)], UNKNOWN),
        called_namespace(),
        first_of(&[HOST_PRINCIPAL], UNKNOWN),
        first_of(&[&said_of_host(5)], UNKNOWN),
        first_of(&[&said_of_host(6)], UNKNOWN),
        first_of(&[&said_of_host(2)], UNKNOWN),
        first_of(&[&said_of_host(3)], "latest"),
        first_of(&[&said_of_host(4)], UNKNOWN),
    ];
    labelled(DESTINATION, values)
}

fn called_namespace() -> String {
    first_of(&[&namespace_of(HOST_PRINCIPAL), &said_of_host(1)], UNKNOWN)
}

fn namespace_of(principal: &str) -> String {
    format!("re.capture({principal}, '.*/ns/([^/]+)/.*')")
}

/// The service that was called, by the cluster's name, which is `outbound|PORT|SUBSET|HOST` or, for traffic that a gateway
/// passes on as it is, `outbound_.PORT_.SUBSET_.HOST`; else by what the client wrote, where that is listened to.
fn destination_of_client(by_host_header: bool) -> [Label; 3] {
    let of_service = |host: &str| {
        let before = "outbound(?:[|][^|]*[|][^|]*[|]|_[.][0-9]+_[.][A-Za-z0-9-]*_[.])";
        format!("re.capture(xds.cluster_name, '{before}{host}')")
    };
    let (host, of_kubernetes, any) = (of_service("(.+)"), of_service("([^.]+)[.][^.]+[.]svc[.].*"), of_service("(.+)"));
    let unmatched = "re.capture(xds.cluster_name, '(PassthroughCluster|BlackHoleCluster)')";
    let blocked = "re.extract(xds.route_name, '^block_all$', 'BlackHoleCluster')";
    let allowed = "re.extract(xds.route_name, '^allow_any$', 'PassthroughCluster')";
    let mut service = vec![host.as_str()];
    let mut name = vec![blocked, allowed, of_kubernetes.as_str(), any.as_str(), unmatched];
    if by_host_header {
        service.push("request.host");
        name.push("request.host");
    }
    [
        ("destination_service", first_of(&service, UNKNOWN)),
        ("destination_service_name", first_of(&name, UNKNOWN)),
        ("destination_service_namespace", called_namespace()),
    ]
}

fn destination_of_server(service: Option<&Service>) -> [Label; 3] {
    let (host, name) = match service {
        Some(service) => (literal(&service.host), literal(&service.name)),
        None => (canonical_service(), literal("InboundPassthroughCluster")),
    };
    [
        ("destination_service", host),
        ("destination_service_name", name),
        ("destination_service_namespace", first_of(&[NODE_NAMESPACE], UNKNOWN)),
    ]
}

/// Text as it is.
pub(super) fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// What an expression is worth.
pub(super) fn cel(expression: &str) -> String {
    format!("%CEL({expression})%")
}

/// The first of these expressions that is worth something; a text if none is.
pub(super) fn first_of(expressions: &[&str], fallback: &str) -> String {
    let last = format!("'{fallback}'");
    let command = |expression: &str| {
        format!(r#"{{"command":"CEL","param":"{}"}}"#, expression.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let commands: Vec<String> = expressions.iter().copied().chain([last.as_str()]).map(command).collect();
    format!(r#"%COALESCE({{"operators":[{}]}})%"#, commands.join(","))
}

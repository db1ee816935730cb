//! The bootstrap that an agent writes for its Envoy: who it is, where its configuration and secrets come from, and how its
//! health is asked for.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{Member, SECRETS};

/// Linux' numbers of the socket option that redirect rules look at.
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

pub(crate) async fn of(member: &Member, api_type: &str) -> anyhow::Result<Value> {
    let Member { kind, pod, namespace, address, token, labels, .. } = member;
    let (host, _) = member.control_plane.rsplit_once(':').context("the control plane has no port")?;
    let control_plane =
        tokio::net::lookup_host(&member.control_plane).await?.next().context("the control plane has no address")?;
    // Nothing is ready before everything has come, as with Istio's own bootstrap.
    let ads = json!({"resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": "0s"});
    let clusters = [
        http2(
            cluster("xds-grpc", &socket(&control_plane.ip().to_string(), control_plane.port())),
            Some((member, host)),
        ),
        http2(cluster("sds-grpc", &json!({"pipe": {"path": format!("@{SECRETS}")}})), None),
        cluster("admin", &socket("127.0.0.1", 15000)),
    ];
    let mut metadata = json!({"NAME": pod, "NAMESPACE": namespace, "INSTANCE_IPS": address, "LABELS": labels});
    for (name, value) in std::env::vars() {
        if let Some(name) = name.strip_prefix("ISTIO_META_") {
            metadata[name] = value.into();
        }
    }
    Ok(json!({
        "node": {
            "id": format!("{kind}~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{pod}.{namespace}"),
            "metadata": metadata,
        },
        "admin": {"address": socket("127.0.0.1", 15000)},
        "cluster_manager": member.mark.map(|mark| json!({"upstream_bind_config": {
            "source_address": {"address": "0.0.0.0", "port_value": 0},
            "socket_options": [{"level": SOL_SOCKET, "name": SO_MARK, "int_value": mark, "state": "STATE_PREBIND"}],
        }})),
        "dynamic_resources": {
            "cds_config": ads, "lds_config": ads,
            "ads_config": {
                "api_type": api_type, "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds-grpc"},
                    "initial_metadata": [{"key": "authorization", "value": format!("Bearer {token}")}],
                }],
            },
        },
        "static_resources": {"clusters": clusters, "listeners": [readiness()]},
    }))
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn cluster(name: &str, address: &Value) -> Value {
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    })
}

/// With TLS to a server of the name given.
fn http2(mut cluster: Value, tls: Option<(&Member, &str)>) -> Value {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    if let Some((member, host)) = tls {
        let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        let context = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": host,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "validation_context": {
                    "trusted_ca": {"filename": member.roots},
                    "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": host}}],
                },
            },
        });
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    }
    cluster
}

/// Where the node asks whether the proxy is ready.
fn readiness() -> Value {
    let route = json!({"match": {"path": "/healthz/ready"}, "route": {"cluster": "admin", "prefix_rewrite": "/ready"}});
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "agent",
        "route_config": {"virtual_hosts": [{"name": "agent", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    });
    json!({
        "name": "readiness", "address": socket("0.0.0.0", 15021),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

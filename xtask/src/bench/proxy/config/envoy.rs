//! An Envoy bootstrap; lateen-proxy gets the very same.

use serde_json::{Value, json};

use super::Files;
use crate::bench::proxy::scenario::{Hop, Traffic, Version};

const LOG: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// An extension's configuration.
fn extension(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{message}").into();
    json!({"name": name, "typed_config": config})
}

pub(crate) fn envoy(hop: &Hop, files: Files<'_>) -> String {
    let filter = match hop.traffic {
        Traffic::Tcp => {
            let config = json!({"stat_prefix": "tcp", "cluster": "upstream"});
            extension("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", config)
        }
        Traffic::Http { .. } => http(hop, files),
    };
    let mut chain = json!({"filters": [filter]});
    if hop.tls_in {
        let config = json!({"require_client_certificate": true, "common_tls_context": tls(hop, files, "server")});
        chain["transport_socket"] =
            extension("envoy.transport_sockets.tls", "transport_sockets.tls.v3.DownstreamTlsContext", config);
    }
    let bootstrap = json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(hop.listen), "filter_chains": [chain]}],
        "clusters": [cluster(hop, files)],
    }});
    bootstrap.to_string()
}

/// What a sidecar without a `Sidecar` object holds: so many services with so many pods, each with a virtual host of its own.
/// All pods are one upstream, which listens on every address.
pub(crate) fn envoy_of_services(listen: u16, upstream: u16, services: u16, pods: u8) -> String {
    let name = |service: u16| format!("outbound|80||service-{service}.default.svc.cluster.local");
    let cluster = |service: u16| {
        let pods: Vec<Value> = (1..=pods)
            .map(|pod| {
                let address = format!("127.{}.{}.{pod}", 1 + service / 250, service % 250);
                let address = json!({"socket_address": {"address": address, "port_value": upstream}});
                json!({"endpoint": {"address": address}})
            })
            .collect();
        json!({
            "name": name(service),
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": {"cluster_name": name(service), "endpoints": [{"lb_endpoints": pods}]},
        })
    };
    let virtual_host = |service: u16| {
        let domain = format!("service-{service}.default.svc.cluster.local");
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": name(service), "timeout": "0s"}});
        json!({"name": format!("{domain}:80"), "domains": [domain], "routes": [route]})
    };
    let router = extension("envoy.filters.http.router", "filters.http.router.v3.Router", json!({}));
    let filter = connection_manager(&[], &[router], (0..services).map(virtual_host).collect());
    let bootstrap = json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(listen), "filter_chains": [{"filters": [filter]}]}],
        "clusters": (0..services).map(cluster).collect::<Vec<_>>(),
    }});
    bootstrap.to_string()
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn cluster(hop: &Hop, files: Files<'_>) -> Value {
    // None of the default limits is to be met.
    let limits = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    let mut cluster = json!({
        "name": "upstream",
        "type": "STATIC",
        // Long enough for two proxies that run under callgrind.
        "connect_timeout": "60s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(hop.upstream)}}]}],
        },
    });
    if let Traffic::Http { upstream: Version::Two, .. } = hop.traffic {
        const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"][OPTIONS] = json!({
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        });
    }
    if hop.tls_out {
        let config = json!({"sni": "server", "common_tls_context": tls(hop, files, "client")});
        cluster["transport_socket"] =
            extension("envoy.transport_sockets.tls", "transport_sockets.tls.v3.UpstreamTlsContext", config);
    }
    cluster
}

/// TLS 1.3 as `identity`; the other side must have an identity of the trust domain.
fn tls(hop: &Hop, files: Files<'_>, identity: &str) -> Value {
    let protocols = match hop.traffic {
        // As Istio's sidecars say it of TCP.
        Traffic::Tcp => json!(["istio-peer-exchange", "istio"]),
        Traffic::Http { upstream: Version::Two, .. } => json!(["h2"]),
        Traffic::Http { upstream: Version::One, .. } => json!(["http/1.1"]),
    };
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": protocols,
        "tls_certificates": [{
            "certificate_chain": {"filename": files.shared(&format!("{identity}.pem"))},
            "private_key": {"filename": files.shared(&format!("{identity}.key"))},
        }],
        "validation_context": {
            "trusted_ca": {"filename": files.shared("ca.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}],
        },
    })
}

fn http(hop: &Hop, files: Files<'_>) -> Value {
    let mut filters = Vec::new();
    let mut loggers = Vec::new();
    if hop.mesh {
        filters = mesh_filters(hop);
    }
    if hop.tells {
        loggers = vec![access_log(files), metrics(hop)];
    }
    filters.push(extension("envoy.filters.http.router", "filters.http.router.v3.Router", json!({})));
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}});
    connection_manager(&loggers, &filters, vec![json!({"name": "all", "domains": ["*"], "routes": [route]})])
}

fn connection_manager(loggers: &[Value], filters: &[Value], virtual_hosts: Vec<Value>) -> Value {
    extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "in",
            "codec_type": "AUTO",
            "access_log": loggers,
            "route_config": {"name": "all", "virtual_hosts": virtual_hosts},
            "http_filters": filters,
        }),
    )
}

/// The filters that Istio gives a sidecar, in its order.
fn mesh_filters(hop: &Hop) -> Vec<Value> {
    let principal = if hop.tls_in {
        json!({"authenticated": {"principal_name": {"prefix": "spiffe://cluster.local/"}}})
    } else {
        json!({"any": true})
    };
    let method = |name: &str| json!({"header": {"name": ":method", "string_match": {"exact": name}}});
    let permission = json!({"and_rules": {"rules": [
        {"or_rules": {"rules": [method("GET"), method("POST")]}},
        {"url_path": {"path": {"prefix": "/"}}},
    ]}});
    let policy = json!({"permissions": [permission], "principals": [principal]});
    let rbac = json!({"rules": {"action": "ALLOW", "policies": {"ns[bench]-policy[allow]-rule[0]": policy}}});
    let grpc = json!({"emit_filter_state": true, "stats_for_all_methods": false});
    vec![
        extension("envoy.filters.http.rbac", "filters.http.rbac.v3.RBAC", rbac),
        extension("envoy.filters.http.grpc_stats", "filters.http.grpc_stats.v3.FilterConfig", grpc),
        extension("envoy.filters.http.fault", "filters.http.fault.v3.HTTPFault", json!({})),
        extension("envoy.filters.http.cors", "filters.http.cors.v3.Cors", json!({})),
    ]
}

/// Istio's default access log, into a file.
fn access_log(files: Files<'_>) -> Value {
    let config = json!({
        "path": files.own("log"),
        "log_format": {"text_format_source": {"inline_string": LOG}},
    });
    extension("envoy.access_loggers.file", "access_loggers.file.v3.FileAccessLog", config)
}

/// Istio's request metrics with the labels that tell requests apart, and those that say which workloads these are.
fn metrics(hop: &Hop) -> Value {
    let (reporter, policy) = if hop.tls_in { ("destination", "mutual_tls") } else { ("source", "unknown") };
    let tags: Vec<Value> = [
        ("reporter", reporter),
        ("source_workload", "client"),
        ("source_workload_namespace", "bench"),
        ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%"),
        ("destination_workload", "server"),
        ("destination_workload_namespace", "bench"),
        ("destination_service", "%REQ(:AUTHORITY)%"),
        ("request_protocol", "%PROTOCOL%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("connection_security_policy", policy),
    ]
    .iter()
    .map(|(name, value)| json!({"name": name, "value_format": value}))
    .collect();
    let histogram = |name: &str, unit: &str, value: &str| json!({"stat": {"name": name, "tags": tags}, "unit": unit, "value_format": value});
    let config = json!({
        "stat_prefix": "istio",
        "counters": [{"stat": {"name": "requests_total", "tags": tags}, "value_fixed": 1}],
        "histograms": [
            histogram("request_duration_milliseconds", "Milliseconds", "%DURATION%"),
            histogram("request_bytes", "Bytes", "%BYTES_RECEIVED%"),
            histogram("response_bytes", "Bytes", "%BYTES_SENT%"),
        ],
    });
    extension("envoy.access_loggers.stats", "access_loggers.stats.v3.Config", config)
}

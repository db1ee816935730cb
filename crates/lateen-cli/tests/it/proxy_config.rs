//! `lateen proxy-config` on a dump: what is printed, and what is refused.

use std::process::Output;

use crate::offline::lateen;

const DUMP: &str = r#"{"configs": [
{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
 "static_clusters": [{"cluster": {"name": "xds", "type": "STATIC"}}],
 "dynamic_active_clusters": [
  {"cluster": {"name": "outbound|80|v1|web.default.svc.cluster.local", "type": "EDS", "metadata": {"filter_metadata": {"lateen": {"origin": [
    {"kind": "DestinationRule", "namespace": "default", "name": "web"}, {"kind": "Service", "namespace": "default", "name": "web"}]}}}}},
  {"cluster": {"name": "inbound|8080||", "type": "ORIGINAL_DST"}},
  {"cluster": {"name": "outbound|443||*.wild.test", "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy"}}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": [
  {"endpoint_config": {"cluster_name": "outbound|80|v1|web.default.svc.cluster.local", "endpoints": [{"lb_endpoints": [
    {"endpoint": {"address": {"socket_address": {"address": "10.0.0.7", "port_value": 8080}}}, "health_status": "HEALTHY"},
    {"endpoint": {"address": {"pipe": {"path": "/run/web"}}}, "health_status": "DRAINING"}]}]}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
  {"name": "virtualInbound", "active_state": {"listener": {"name": "virtualInbound", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
   "filter_chains": [
    {"filter_chain_match": {"destination_port": 8080, "transport_protocol": "tls", "application_protocols": ["istio-http/1.1", "h2"]},
     "filters": [{"name": "http", "typed_config": {"route_config": {"name": "inbound|8080||"}}}]},
    {"filter_chain_match": {"destination_port": 15006}, "filters": []}]}}},
  {"name": "0.0.0.0_80", "active_state": {"listener": {"name": "0.0.0.0_80", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
   "filter_chains": [{"filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1"]},
     "filters": [{"name": "http", "typed_config": {"rds": {"route_config_name": "80"}}}]}],
   "default_filter_chain": {"filters": [{"name": "tcp", "typed_config": {"cluster": "PassthroughCluster"}}]}}}},
  {"name": "10.0.1.2_443", "active_state": {"listener": {"name": "10.0.1.2_443", "address": {"socket_address": {"address": "10.0.1.2", "port_value": 443}},
   "filter_chains": [
    {"filter_chain_match": {"server_names": ["a.test"], "prefix_ranges": [{"address_prefix": "10.0.1.0", "prefix_len": 24}]},
     "filters": [{"name": "tcp", "typed_config": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}}}]},
    {"filters": [{"name": "tcp", "typed_config": {"cluster": "a"}}]}]}}},
  {"name": "refused", "error_state": {"details": "no"}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
  {"route_config": {"name": "80", "virtual_hosts": [
   {"name": "web:80", "domains": ["web.default.svc", "web.default", "web"], "routes": [
    {"match": {"prefix": "/a", "headers": [{"name": "x"}, {"name": "y"}]}, "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}},
     "metadata": {"filter_metadata": {"lateen": {"origin": [{"kind": "VirtualService", "namespace": "shop", "name": "web"}]}}}},
    {"match": {"path": "/b"}, "redirect": {}},
    {"match": {"safe_regex": {"regex": "/c.*"}}, "direct_response": {"status": 418}},
    {"match": {"prefix": "/"}, "route": {"cluster": "a"}}]},
   {"name": "nothing", "domains": ["*"]}]}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"}]}"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dump.json"), DUMP).unwrap();
    folder
}

/// The lines of a table, with single spaces.
fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn each_part_is_a_table() {
    let folder = folder();
    let table = |part: &str| lines(&lateen(folder.path(), &["proxy-config", part, "-f", "dump.json"]));
    assert_eq!(
        table("listener"),
        [
            "ADDRESS PORT MATCH DESTINATION",
            "0.0.0.0 80 Trans: raw_buffer; App: http/1.1 Route: 80",
            "0.0.0.0 80 default PassthroughCluster",
            "0.0.0.0 15006 Trans: tls; App: istio-http/1.1,h2; Addr: *:8080 Inline Route: inbound|8080||",
            "0.0.0.0 15006 Addr: *:15006 none: connections are closed",
            "10.0.1.2 443 SNI: a.test; Addr: 10.0.1.0/24 a (90), b (10)",
            "10.0.1.2 443 ALL a",
        ]
    );
    assert_eq!(
        table("route"),
        [
            "NAME VHOST NAME DOMAINS MATCH DESTINATION VIRTUAL SERVICE",
            "80 web:80 web, web.default + 1 more /a* + 2 conditions a (90), b (10) web.shop",
            "80 web:80 web, web.default + 1 more /b redirect",
            "80 web:80 web, web.default + 1 more regex /c.* answer 418",
            "80 web:80 web, web.default + 1 more /* a",
            "80 nothing * none: 404",
        ]
    );
    assert_eq!(
        table("cluster"),
        [
            "SERVICE FQDN PORT SUBSET DIRECTION TYPE DESTINATION RULE",
            "- 8080 - inbound ORIGINAL_DST",
            "*.wild.test 443 - outbound dynamic_forward_proxy",
            "web.default.svc.cluster.local 80 v1 outbound EDS web.default",
            "xds - - - STATIC",
        ]
    );
    assert_eq!(
        table("endpoint"),
        [
            "ENDPOINT STATUS OUTLIER CHECK CLUSTER",
            "10.0.0.7:8080 HEALTHY - outbound|80|v1|web.default.svc.cluster.local",
            "unix:///run/web DRAINING - outbound|80|v1|web.default.svc.cluster.local",
        ]
    );
    assert_eq!(table("secret"), ["no secrets"]);
    assert!(table("all").contains(&"no secrets".to_owned()));
}

#[test]
fn what_is_shown_can_be_chosen() {
    let folder = folder();
    let choose = |words: &[&str]| {
        let words: Vec<&str> = ["pc"].iter().chain(words).chain(&["-f", "dump.json"]).copied().collect();
        lines(&lateen(folder.path(), &words)).len() - 1
    };
    assert_eq!(choose(&["listeners", "--port", "15006"]), 2);
    assert_eq!(choose(&["l", "--address", "10.0.1.2", "--port", "443"]), 2);
    assert_eq!(choose(&["r", "--name", "80"]), 5);
    assert_eq!(choose(&["c", "--fqdn", "web.default"]), 1);
    assert_eq!(choose(&["c", "--direction", "inbound"]), 1);
    assert_eq!(choose(&["c", "--subset", "v1", "--port", "80"]), 1);
    assert_eq!(choose(&["ep", "--address", "10.0.0.7"]), 1);
    assert_eq!(choose(&["routes", "--name", "81"]), 0, "it says that there are none");
    let json = lateen(folder.path(), &["pc", "c", "--subset", "v1", "-f", "dump.json", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(found[0]["name"], "outbound|80|v1|web.default.svc.cluster.local");
}

#[test]
fn what_cannot_be_shown_is_said() {
    let folder = folder();
    std::fs::write(folder.path().join("other.json"), "{}").unwrap();
    std::fs::write(folder.path().join("text"), "hello").unwrap();
    for (words, status, said) in [
        (&["pc", "c", "-f", "other.json"][..], 1, "the dump has no `configs`: what /config_dump answers is expected"),
        (&["pc", "c", "-f", "text"], 1, "the dump is not JSON"),
        (&["pc", "c", "-f", "absent"], 1, "read absent"),
        (&["pc", "c"], 2, "required arguments"),
        (&["pc", "c", "web", "-f", "dump.json"], 2, "cannot be used with"),
        (&["pc", "c", "web.shop", "-n", "other"], 2, "web.shop and --namespace other name two namespaces"),
        (&["pc", "c", "web"], 1, "no mesh"),
        (&["pc", "clutser", "web"], 2, "unrecognized subcommand"),
    ] {
        let output = lateen(folder.path(), words);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(status) && complaint.contains(said), "{words:?}: {complaint}");
    }
}

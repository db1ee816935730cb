//! Bootstraps in, dumps out; the rules of the mapping one by one.

mod generated;
mod reflection;
mod rules;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use serde_json::json;

use super::{Error, from_yaml, message_to_json};

const TEXT: &str = r#"
static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, portValue: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: y, cluster: up}
  clusters:
  - {name: up, type: STATIC, connect_timeout: 0.25s}
"#;

fn read(text: &str) -> Result<Bootstrap, Error> {
    from_yaml(text)
}

#[test]
fn a_bootstrap_reads_with_either_field_style_and_opens_packed_messages() {
    let resources = read(TEXT).expect("it is valid").static_resources.expect("they are set");
    let filter = &resources.listeners[0].filter_chains[0].filters[0];
    let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { panic!("typed") };
    assert!(config.type_url.ends_with(".TcpProxy"), "{}", config.type_url);
    assert_eq!(resources.clusters[0].connect_timeout.expect("set").nanos, 250_000_000);
}

#[test]
fn errors_name_line_column_and_field_also_in_packed_messages() {
    let listener = "static_resources.listeners[0]";
    let filter = format!("{listener}.filter_chains[0].filters[0].typed_config");
    let cases = [
        (
            ("connect_timeout", "conect_timeout"),
            "line 11, column 30: static_resources.clusters[0]: envoy.config.cluster.v3.Cluster has no field `conect_timeout`".to_owned(),
        ),
        (
            ("stat_prefix", "stat_prefixx"),
            format!(
                "line 9, column 109: {filter}: envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy has no field `stat_prefixx`"
            ),
        ),
        (
            ("portValue: 0", "portValue: zero"),
            format!(
                "line 5, column 63: {listener}.address.socket_address.port_value: expected a whole number from 0 to \
                 4294967295, found \"zero\""
            ),
        ),
        (
            (".TcpProxy", ".TcpProxies"),
            format!(
                "line 9, column 33: {filter}.@type: there is no type \
                 envoy.extensions.filters.network.tcp_proxy.v3.TcpProxies"
            ),
        ),
        (
            ("0.25s", "quarter"),
            "line 11, column 47: static_resources.clusters[0].connect_timeout: expected a duration in seconds, such as \
             1.5s, found \"quarter\""
                .to_owned(),
        ),
        (("STATIC", "STATICK"), "line 11, column 22: static_resources.clusters[0].type: `STATICK` is none of its values".to_owned()),
    ];
    for ((from, to), expected) in cases {
        assert_eq!(read(&TEXT.replace(from, to)).expect_err("a mistake").to_string(), expected);
    }
}

#[test]
fn what_was_read_is_written_as_the_admin_port_writes_it() {
    let json = message_to_json(&read(TEXT).expect("it is valid")).expect("it has a form");
    let cluster = &json["static_resources"]["clusters"][0];
    assert_eq!(cluster, &json!({ "name": "up", "type": "STATIC", "connect_timeout": "0.250s" }));
    let filter = &json["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(filter["stat_prefix"], "y");
}

//! Bootstraps in, dumps out.

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use serde_json::json;

use super::Descriptors;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

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

fn read(text: &str) -> Result<Bootstrap, super::Error> {
    Descriptors::new().from_yaml(BOOTSTRAP, text)
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
fn unknown_fields_are_errors_that_name_the_field_also_in_packed_messages() {
    for (from, to) in [("connect_timeout", "conect_timeout"), ("stat_prefix", "stat_prefixx")] {
        let error = read(&TEXT.replace(from, to)).expect_err("a typo").to_string();
        assert!(error.contains(to), "{error}");
    }
}

#[test]
fn a_key_twice_is_an_error() {
    assert!(read("node: {id: a}\nnode: {id: b}\n").is_err());
}

#[test]
fn what_was_read_is_written_as_the_admin_port_writes_it() {
    let descriptors = Descriptors::new();
    let bootstrap: Bootstrap = descriptors.from_yaml(BOOTSTRAP, TEXT).expect("it is valid");
    let json = descriptors.to_json(BOOTSTRAP, &prost::Message::encode_to_vec(&bootstrap)).expect("it has a form");
    let cluster = &json["static_resources"]["clusters"][0];
    assert_eq!(cluster, &json!({ "name": "up", "type": "STATIC", "connect_timeout": "0.250s" }));
    let filter = &json["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(filter["stat_prefix"], "y");
}

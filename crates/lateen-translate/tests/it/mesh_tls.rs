//! What the mesh config says of TLS reaches every context that it is about, and no other.

use lateen_api::mesh_config::{MinimumTls, TlsConfig};
use lateen_mesh::MeshConfig;
use lateen_translate::type_url;
use serde_json::Value;

use crate::world::World;

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  ports: [{name: tls, number: 443, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside}
spec: {host: outside.test, trafficPolicy: {tls: {mode: SIMPLE, sni: outside.test}}}
";

/// Every `tls_params` within, with the name of the validation's secret beside it.
fn parameters(value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get("tls_params").cloned());
            fields.values().for_each(|field| parameters(field, out));
        }
        Value::Array(items) => items.iter().for_each(|item| parameters(item, out)),
        _ => {}
    }
}

#[test]
fn mesh_mtls_and_all_other_tls_have_their_own_settings() {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let config = MeshConfig {
        mesh_mtls: TlsConfig {
            min_protocol_version: MinimumTls::V1_3,
            ecdh_curves: list(&["X25519MLKEM768"]),
            cipher_suites: Vec::new(),
        },
        tls_defaults: TlsConfig {
            ecdh_curves: list(&["P-256"]),
            cipher_suites: list(&["ECDHE-RSA-AES128-GCM-SHA256"]),
            ..TlsConfig::default()
        },
        ..MeshConfig::default()
    };
    let world = World::new(&[("shop.yaml", include_str!("shop.yaml")), ("rules.yaml", RULES)], config);
    let found = |kind: &str, name: &str| {
        let mut out = Vec::new();
        parameters(&world.one("api-v1-0.default", kind, name), &mut out);
        assert!(!out.is_empty(), "{name} has TLS");
        out
    };
    let mesh = [
        found(type_url::LISTENER, "virtualInbound"),
        found(type_url::CLUSTER, "outbound|80||web.default.svc.cluster.local"),
    ];
    for parameters in mesh.concat() {
        assert_eq!(parameters["tls_minimum_protocol_version"], "TLSv1_3", "{parameters:#}");
        assert_eq!(parameters["ecdh_curves"], serde_json::json!(["X25519MLKEM768"]), "{parameters:#}");
    }
    for parameters in found(type_url::CLUSTER, "outbound|443||outside.test") {
        assert_eq!(parameters["tls_minimum_protocol_version"], "TLSv1_2", "{parameters:#}");
        assert_eq!(parameters["ecdh_curves"], serde_json::json!(["P-256"]), "{parameters:#}");
        assert_eq!(parameters["cipher_suites"], serde_json::json!(["ECDHE-RSA-AES128-GCM-SHA256"]), "{parameters:#}");
    }
}

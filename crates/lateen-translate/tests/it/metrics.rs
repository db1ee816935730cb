//! Which metrics a proxy has, and of what their labels are made: `tests/metrics/labels.txt` says it for a client, a server and a
//! gateway, once for all metrics that have the same labels. `UPDATE=1` rewrites it.

use std::fmt::Write as _;

use lateen_mesh::MeshConfig;
use lateen_translate::type_url;
use serde_json::Value;

use crate::world::{World, here, json};

/// Proxy, listener, and filter chain; empty: the first that counts anything.
const SHOWN: [(&str, &str, &str); 5] = [
    ("client-0.default", "0.0.0.0_80", ""),
    ("client-0.default", "10.0.0.1_9000", ""),
    ("web-0.default", "virtualInbound", "0.0.0.0_80"),
    ("web-0.default", "virtualInbound", "0.0.0.0_9000"),
    ("gate-0.istio-system", "0.0.0.0_80", ""),
];

#[test]
fn labels_are_made_as_reviewed() {
    let folder = here().join("tests/metrics");
    let text = std::fs::read_to_string(folder.join("world.yaml")).expect("the world is readable");
    let world = World::new(&[("world.yaml", &text)], MeshConfig::default());
    let mut got = String::new();
    for (proxy, listener, chain) in SHOWN {
        writeln!(got, "## {proxy} {listener} {chain}").expect("strings take text");
        let resources = world.resources(proxy, type_url::LISTENER);
        let found = resources.iter().find(|named| *named.name == *listener);
        let found = found.unwrap_or_else(|| panic!("{listener} among {:?}", world.names(proxy, type_url::LISTENER)));
        got.push_str(&shown(&loggers(&json(found), chain)));
    }
    let expected = folder.join("labels.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&expected, &got).expect("the file is written");
    }
    assert_eq!(got, std::fs::read_to_string(&expected).unwrap_or_default(), "UPDATE=1 rewrites");
}

/// The access loggers of a listener's filter chain.
fn loggers(listener: &Value, chain: &str) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let chains = list(&listener["filter_chains"]).into_iter().chain([listener["default_filter_chain"].clone()]);
    let counting = chains
        .filter(|it| chain.is_empty() || it["name"] == chain)
        .flat_map(|it| list(&it["filters"]))
        .map(|filter| list(&filter["typed_config"]["access_log"]))
        .find(|logs| !logs.is_empty());
    let mut logs = counting.expect("a filter chain counts");
    logs.retain(|log| log["name"] == "envoy.access_loggers.stats");
    logs
}

/// Metrics by their labels.
fn shown(loggers: &[Value]) -> String {
    let mut text = String::new();
    for logger in loggers {
        if !logger["filter"].is_null() {
            writeln!(text, "where {}", logger["filter"]).expect("strings take text");
        }
        let mut last = String::new();
        for kind in ["counters", "histograms"] {
            for metric in logger["typed_config"][kind].as_array().into_iter().flatten() {
                let amount = metric["value_format"].as_str().unwrap_or("1");
                let name = metric["stat"]["name"].as_str().expect("a metric has a name");
                writeln!(text, "{name} ({kind}) += {amount}").expect("strings take text");
                let mut labels = String::new();
                for tag in metric["stat"]["tags"].as_array().into_iter().flatten() {
                    writeln!(labels, "  {} = {}", plain(&tag["name"]), plain(&tag["value_format"]))
                        .expect("strings take text");
                }
                if labels == last {
                    text.push_str("  (the same labels)\n");
                } else {
                    text.push_str(&labels);
                    last = labels;
                }
            }
        }
    }
    text
}

/// A format as one reads it: the first of several expressions that has a value.
fn plain(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let operators = text.strip_prefix("%COALESCE(").and_then(|rest| rest.strip_suffix(")%"));
    let Some(operators) = operators.and_then(|it| serde_json::from_str::<Value>(it).ok()) else {
        return text.to_owned();
    };
    let expressions: Vec<&str> =
        operators["operators"].as_array().into_iter().flatten().filter_map(|it| it["param"].as_str()).collect();
    expressions.join("\n      else ")
}

//! Listeners: address, what a filter chain matches, and where it leads.

use clap::Args;
use serde_json::Value;

use super::{Of, address, dump, rows, text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) of: Of,
    /// Only on this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only at this address.
    #[arg(long)]
    address: Option<String>,
}

pub(super) fn found(arguments: &Arguments, dump: &Value) -> Vec<Value> {
    let mut listeners = dump::listeners(dump);
    listeners.retain(|listener| {
        let (own, port) = address(&listener["address"]);
        arguments.port.is_none_or(|wanted| wanted.to_string() == port)
            && arguments.address.as_ref().is_none_or(|wanted| *wanted == own)
    });
    listeners.sort_by_key(|listener| {
        let (own, port) = address(&listener["address"]);
        (own, port.parse::<u32>().unwrap_or_default())
    });
    listeners
}

pub(super) fn table(listeners: &[Value]) -> String {
    let mut out = Vec::new();
    for listener in listeners {
        let (own, port) = address(&listener["address"]);
        let chains = listener["filter_chains"].as_array().into_iter().flatten().map(|chain| (chain, false));
        let default = listener.get("default_filter_chain").map(|chain| (chain, true));
        for (chain, is_default) in chains.chain(default) {
            let matching = matching(&chain["filter_chain_match"], is_default);
            out.push(vec![own.clone(), port.clone(), matching, destination(chain)]);
        }
    }
    rows(&["ADDRESS", "PORT", "MATCH", "DESTINATION"], &out, "no listeners")
}

/// What a chain is for.
fn matching(conditions: &Value, is_default: bool) -> String {
    let mut parts = Vec::new();
    let list = |field: &str| -> Vec<String> {
        let entries = conditions[field].as_array().into_iter().flatten();
        entries.map(|entry| entry.as_str().map_or_else(|| range(entry), str::to_owned)).collect()
    };
    for (word, values) in [("SNI", list("server_names")), ("App", list("application_protocols"))] {
        if !values.is_empty() {
            parts.push(format!("{word}: {}", values.join(",")));
        }
    }
    if let Some(transport) = conditions["transport_protocol"].as_str().filter(|text| !text.is_empty()) {
        parts.insert(0, format!("Trans: {transport}"));
    }
    let addresses = list("prefix_ranges");
    let port = conditions["destination_port"].as_u64();
    match (addresses.is_empty(), port) {
        (true, None) => {}
        (true, Some(port)) => parts.push(format!("Addr: *:{port}")),
        (false, None) => parts.push(format!("Addr: {}", addresses.join(","))),
        (false, Some(port)) => parts.push(format!("Addr: {}:{port}", addresses.join(","))),
    }
    match (parts.is_empty(), is_default) {
        (true, true) => "default".to_owned(),
        (true, false) => "ALL".to_owned(),
        (false, _) => parts.join("; "),
    }
}

fn range(range: &Value) -> String {
    format!("{}/{}", text(&range["address_prefix"]), range["prefix_len"].as_u64().unwrap_or_default())
}

/// Where the last filter of a chain leads.
fn destination(chain: &Value) -> String {
    let Some(last) = chain["filters"].as_array().and_then(|filters| filters.last()) else {
        return "none: connections are closed".to_owned();
    };
    let config = &last["typed_config"];
    if let Some(name) = config["rds"]["route_config_name"].as_str() {
        return format!("Route: {name}");
    }
    if let Some(table) = config.get("route_config") {
        return format!("Inline Route: {}", text(&table["name"]));
    }
    if let Some(cluster) = config["cluster"].as_str() {
        return cluster.to_owned();
    }
    let weighted = config["weighted_clusters"]["clusters"].as_array().into_iter().flatten();
    let weighted: Vec<String> = weighted
        .map(|cluster| format!("{} ({})", text(&cluster["name"]), cluster["weight"].as_u64().unwrap_or_default()))
        .collect();
    if weighted.is_empty() { text(&last["name"]).to_owned() } else { weighted.join(", ") }
}

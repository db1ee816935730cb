//! Routes: one row for each, in the order in which they are tried.

use std::net::IpAddr;

use clap::Args;
use serde_json::Value;

use super::{Of, dump, origins, rows, text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) of: Of,
    /// Only the table of this name.
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn found(arguments: &Arguments, dump: &Value) -> Vec<Value> {
    let mut tables = dump::routes(dump);
    tables.retain(|table| arguments.name.as_ref().is_none_or(|wanted| table["name"] == **wanted));
    tables
}

pub(super) fn table(tables: &[Value]) -> String {
    let mut out = Vec::new();
    for table in tables {
        for host in table["virtual_hosts"].as_array().into_iter().flatten() {
            let name = [text(&table["name"]), text(&host["name"])].map(str::to_owned);
            let domains = domains(host);
            let routes = host["routes"].as_array().map_or(&[] as &[Value], Vec::as_slice);
            if routes.is_empty() {
                let row = [name[0].clone(), name[1].clone(), domains.clone(), "none: 404".to_owned()];
                out.push(row.into_iter().chain(["".to_owned(), String::new()]).collect());
            }
            for route in routes {
                let rule = origins(route, "VirtualService");
                let row = [name[0].clone(), name[1].clone(), domains.clone(), matching(&route["match"])];
                out.push(row.into_iter().chain([destination(route), rule]).collect::<Vec<_>>());
            }
        }
    }
    rows(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION", "VIRTUAL SERVICE"], &out, "no routes")
}

/// The shortest names.
fn domains(host: &Value) -> String {
    const SHOWN: usize = 2;
    let mut all: Vec<&str> = host["domains"].as_array().into_iter().flatten().map(text).collect();
    all.sort_by_key(|domain| (domain.parse::<IpAddr>().is_ok(), domain.len()));
    let first = all[..all.len().min(SHOWN)].join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} + {more} more"),
    }
}

fn matching(conditions: &Value) -> String {
    let path = if let Some(prefix) = conditions["prefix"].as_str() {
        format!("{prefix}*")
    } else if let Some(path) = conditions["path"].as_str() {
        path.to_owned()
    } else if let Some(prefix) = conditions["path_separated_prefix"].as_str() {
        format!("{prefix}[/*]")
    } else if let Some(pattern) = conditions["safe_regex"]["regex"].as_str() {
        format!("regex {pattern}")
    } else if conditions.get("connect_matcher").is_some() {
        "CONNECT".to_owned()
    } else {
        "*".to_owned()
    };
    let more = ["headers", "query_parameters"].iter().map(|field| conditions[field].as_array().map_or(0, Vec::len));
    match more.sum::<usize>() {
        0 => path,
        1 => format!("{path} + 1 condition"),
        more => format!("{path} + {more} conditions"),
    }
}

fn destination(route: &Value) -> String {
    let action = &route["route"];
    if let Some(cluster) = action["cluster"].as_str() {
        return cluster.to_owned();
    }
    if let Some(clusters) = action["weighted_clusters"]["clusters"].as_array() {
        let of = |cluster: &Value| {
            format!("{} ({})", text(&cluster["name"]), cluster["weight"].as_u64().unwrap_or_default())
        };
        return clusters.iter().map(of).collect::<Vec<_>>().join(", ");
    }
    if let Some(status) = route["direct_response"]["status"].as_u64() {
        return format!("answer {status}");
    }
    if route.get("redirect").is_some() { "redirect".to_owned() } else { String::new() }
}

//! `lateen stat`: what proxies know of the traffic: of each workload how much it serves, how reliably and how fast;
//! `--ejections`, the hosts that they keep from requests, and `--zones`, the bytes between zones.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::columns::columns;
use super::edges::{milliseconds, percent};
use super::pods::{Age, ThePod};
use super::traffic::{Edges, End, Golden, edges};
use super::{Output, StateOption, pods, proxies};
use crate::runtime::state_dir::StateDir;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only of this pod's proxy: its name, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment
    /// [default: all proxies].
    pod: Option<String>,
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Hosts that outlier detection has ejected: which proxy keeps them out, why, since when and until when.
    #[arg(long, conflicts_with = "zones")]
    ejections: bool,
    /// Bytes that the callers' proxies have sent to each zone and received from it.
    #[arg(long)]
    zones: bool,
    /// Only what workloads serve in so many seconds from now [default: all since the proxies began].
    #[arg(short, long, value_name = "SECONDS", conflicts_with_all = ["zones", "ejections"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    window: Option<u64>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let pods: Vec<ThePod> = match &arguments.pod {
        Some(name) => vec![pods::find(&state, &arguments.namespace, name)?],
        None => proxies::ready(&state)?,
    };
    if arguments.zones {
        return super::zones::show(&state, &pods, arguments.output);
    }
    if !arguments.ejections {
        return workloads(arguments, super::block_on(edges(&state, &pods, arguments.window.map(Duration::from_secs)))?);
    }
    let found = super::block_on(ejections(&state, &pods))?;
    match arguments.output {
        Output::Json => anstream::println!("{:#}", json!({ "ejections": found })),
        Output::Table if found.is_empty() => anstream::println!("no host is ejected"),
        Output::Table => anstream::println!("{}", table(&found)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What each workload serves, whoever has called it.
fn workloads(arguments: &Arguments, edges: Edges) -> anyhow::Result<ExitCode> {
    let mut all: BTreeMap<(End, String), Golden> = BTreeMap::new();
    for (edge, golden) in edges {
        all.entry((edge.to, edge.protocol)).or_default().add(&golden);
    }
    let entry = |((workload, protocol), golden): (&(End, String), &Golden)| {
        golden.told(json!({ "workload": workload.workload, "namespace": workload.namespace, "protocol": protocol }))
    };
    let row = |((workload, protocol), golden): (&(End, String), &Golden)| {
        let of_requests = |text: String| if protocol == "tcp" { "-".to_owned() } else { text };
        let took = |share| of_requests(milliseconds(golden.quantile(share)));
        vec![
            workload.to_string(),
            protocol.clone(),
            format!("{:.0}", golden.count),
            of_requests(percent(golden.success())),
            took(0.5),
            took(0.9),
            took(0.99),
        ]
    };
    match arguments.output {
        Output::Json => {
            let entries: Vec<Value> = all.iter().map(entry).collect();
            anstream::println!("{:#}", json!({ "workloads": entries, "windowSeconds": arguments.window }));
        }
        Output::Table if all.is_empty() => anstream::println!("nobody has called anybody"),
        Output::Table => {
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            let header = ["WORKLOAD", "PROTOCOL", "REQUESTS", "SUCCESS", "P50", "P90", "P99"];
            anstream::println!("{}", columns(&header, &rows));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Of each proxy, with its name.
async fn ejections(state: &StateDir, pods: &[ThePod]) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for pod in pods {
        let answer: Value = serde_json::from_str(&proxies::ask(state, pod, "GET", "/ejections").await?)?;
        for ejection in answer["ejections"].as_array().into_iter().flatten() {
            let mut ejection = ejection.clone();
            ejection["proxy"] = json!(format!("{}.{}", pod.name(), pod.namespace()));
            found.push(ejection);
        }
    }
    Ok(found)
}

fn table(found: &[Value]) -> String {
    let row = |ejection: &Value| {
        let text = |field: &str| ejection[field].as_str().unwrap_or_default().to_owned();
        let workload = match (text("workload"), text("namespace")) {
            (workload, _) if workload.is_empty() => "-".to_owned(),
            (workload, namespace) => format!("{workload}.{namespace}"),
        };
        let since = Age::since(&text("since")).to_string();
        vec![text("proxy"), text("host"), workload, text("cluster"), text("cause"), since, text("until")]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    columns(&["PROXY", "HOST", "WORKLOAD", "CLUSTER", "CAUSE", "FOR", "UNTIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_why_and_until_when() {
        let ejection = json!({
            "proxy": "web-1.default", "host": "10.0.0.1:80", "workload": "shop", "namespace": "store", "cluster": "c",
            "cause": "consecutive_5xx", "since": "nonsense", "until": "2030-01-01T00:00:00Z",
        });
        let row =
            "web-1.default   10.0.0.1:80   shop.store   c         consecutive_5xx   <unknown>   2030-01-01T00:00:00Z";
        assert_eq!(table(&[ejection]).lines().nth(1), Some(row));
    }
}

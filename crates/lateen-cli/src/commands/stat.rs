//! `lateen stat`: of each workload how much it serves, how reliably and how fast; of what proxies know besides,
//! `--ejections`, the hosts that they keep from requests, and `--zones`, the bytes between zones.

use std::process::ExitCode;

use clap::Args;
use lateen_control::traffic::view::Served;
use lateen_mesh::TelemetryLabels;
use serde_json::{Value, json};

use super::columns::columns;
use super::pods::{Age, ThePod};
use super::traffic::{self, Output, Window};
use super::{StateOption, pods, proxies};
use crate::runtime::state_dir::StateDir;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only of this pod's workload, or of its proxy: its name, the beginning of exactly one name, or deploy/NAME for a pod of
    /// a Deployment [default: all].
    pod: Option<String>,
    /// The pod's namespace [default: default]; without a pod: only workloads of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    /// Hosts that outlier detection has ejected: which proxy keeps them out, why, since when and until when.
    #[arg(long, conflicts_with = "zones")]
    ejections: bool,
    /// Bytes that the callers' proxies have sent to each zone and received from it.
    #[arg(long)]
    zones: bool,
    #[command(flatten)]
    window: Window,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let namespace = arguments.namespace.as_deref();
    let pod = match &arguments.pod {
        Some(name) => Some(pods::find(&state, namespace.unwrap_or("default"), name)?),
        None => None,
    };
    if !arguments.zones && !arguments.ejections {
        return workloads(arguments, &state, pod.as_ref());
    }
    let pods = match pod {
        Some(pod) => vec![pod],
        None => {
            let mut all = proxies::ready(&state)?;
            all.retain(|pod| namespace.is_none_or(|namespace| pod.namespace() == namespace));
            all
        }
    };
    if arguments.zones {
        return super::zones::show(&state, &pods, arguments.output);
    }
    let found = super::block_on(ejections(&state, &pods))?;
    match arguments.output {
        Output::Json => anstream::println!("{:#}", json!({ "ejections": found })),
        Output::Table | Output::Wide if found.is_empty() => anstream::println!("no host is ejected"),
        Output::Table | Output::Wide => anstream::println!("{}", table(&found)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What each workload serves, whoever has called it.
fn workloads(arguments: &Arguments, state: &StateDir, pod: Option<&ThePod>) -> anyhow::Result<ExitCode> {
    let mut found = traffic::ask(state, &arguments.window)?;
    if let Some(pod) = pod {
        let workload = TelemetryLabels::of_pod(pod).workload;
        found.workloads.retain(|served| {
            let end = &served.workload;
            (end.workload.as_deref(), end.namespace.as_deref()) == (Some(workload), Some(pod.namespace()))
        });
    } else if let Some(namespace) = &arguments.namespace {
        traffic::of_namespace(&mut found, namespace);
    }
    match arguments.output {
        Output::Json => {
            let told = json!({
                "at": found.at, "windowSeconds": found.window_seconds, "since": found.since,
                "reporting": found.reporting, "dropped": found.dropped, "workloads": found.workloads,
            });
            anstream::println!("{told:#}");
        }
        Output::Table | Output::Wide if found.workloads.is_empty() => {
            anstream::println!("{}", traffic::nothing(&found));
        }
        Output::Table | Output::Wide => {
            anstream::println!("{}", served(&found.workloads, arguments.output == Output::Wide));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn served(all: &[Served], is_wide: bool) -> String {
    let row = |served: &Served| {
        let [p50, p90, p95, p99] = traffic::latency(&served.figures);
        let mut row = vec![
            served.workload.to_string(),
            served.protocol.to_string(),
            traffic::calls(served.protocol, &served.figures),
            traffic::rate(served.figures.requests_per_second),
            traffic::success(&served.figures),
            p50,
            p90,
            p99,
        ];
        if is_wide {
            row.insert(7, p95);
            row.extend([
                traffic::security(served.security).to_owned(),
                traffic::bytes(served.figures.sent_bytes_per_second),
                traffic::bytes(served.figures.received_bytes_per_second),
            ]);
        }
        row
    };
    let mut header = vec!["WORKLOAD", "PROTOCOL", "REQUESTS", "RATE", "SUCCESS", "P50", "P90", "P99"];
    if is_wide {
        header.insert(7, "P95");
        header.extend(["SECURED", "IN", "OUT"]);
    }
    columns(&header, &all.iter().map(row).collect::<Vec<_>>())
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

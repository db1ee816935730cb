//! `lateen edges`: who calls whom in the running mesh, and whether by mutual TLS.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::columns::columns;
use super::traffic::{Edge, Edges, End, Golden, edges};
use super::{Output, StateOption, proxies};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only calls from or to workloads of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only what happens in so many seconds from now [default: all since the proxies began].
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    window: Option<u64>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let window = arguments.window.map(Duration::from_secs);
    let mut found = super::block_on(edges(&state, &proxies::ready(&state)?, window))?;
    if let Some(namespace) = &arguments.namespace {
        found.retain(|edge, _| [&edge.from, &edge.to].iter().any(|end| end.namespace == *namespace));
    }
    match arguments.output {
        Output::Json => {
            let entries: Vec<Value> = found.iter().map(|(edge, golden)| entry(edge, golden)).collect();
            anstream::println!("{:#}", json!({ "edges": entries, "windowSeconds": arguments.window }));
        }
        Output::Table if found.is_empty() => anstream::println!("nobody has called anybody"),
        Output::Table => anstream::println!("{}", table(&found)),
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(edge: &Edge, golden: &Golden) -> Value {
    let end = |end: &End| json!({ "workload": end.workload, "namespace": end.namespace });
    golden.told(json!({
        "from": end(&edge.from), "to": end(&edge.to), "protocol": edge.protocol, "mutualTls": edge.secured,
    }))
}

fn table(found: &Edges) -> String {
    let row = |(edge, golden): (&Edge, &Golden)| {
        let secured = match edge.secured {
            Some(true) => "mutual TLS",
            Some(false) => "no",
            None => "unknown",
        };
        let [success, p50, p99] = figures(edge, golden);
        vec![
            edge.from.to_string(),
            edge.to.to_string(),
            edge.protocol.clone(),
            secured.to_owned(),
            format!("{:.0}", golden.count),
            success,
            p50,
            p99,
        ]
    };
    let header = ["FROM", "TO", "PROTOCOL", "SECURED", "REQUESTS", "SUCCESS", "P50", "P99"];
    columns(&header, &found.iter().map(row).collect::<Vec<_>>())
}

/// Success, and how long half and nearly all requests took; TCP has no such thing.
fn figures(edge: &Edge, golden: &Golden) -> [String; 3] {
    if edge.protocol == "tcp" {
        return ["-"; 3].map(str::to_owned);
    }
    [percent(golden.success()), milliseconds(golden.quantile(0.5)), milliseconds(golden.quantile(0.99))]
}

pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}%"))
}

pub(super) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| if value < 10.0 { format!("{value:.1}ms") } else { format!("{value:.0}ms") },
    )
}

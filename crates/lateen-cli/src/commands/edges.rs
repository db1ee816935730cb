//! `lateen edges`: who calls whom in the running mesh, and whether by mutual TLS.

use std::process::ExitCode;

use clap::Args;
use lateen_control::traffic::view::Edge;

use super::StateOption;
use super::columns::columns;
use super::traffic::{self, Output, Window};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only calls from or to workloads of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
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
    let mut found = traffic::ask(&state, &arguments.window)?;
    if let Some(namespace) = &arguments.namespace {
        traffic::of_namespace(&mut found, namespace);
    }
    match arguments.output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&found)?),
        Output::Table | Output::Wide if found.edges.is_empty() => {
            anstream::println!("{}", traffic::nothing(&found));
        }
        Output::Table => anstream::println!("{}", table(&found.edges)),
        Output::Wide => anstream::println!("{}", wide(&found.edges)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(edges: &[Edge]) -> String {
    let row = |edge: &Edge| {
        let [p50, .., p99] = traffic::latency(&edge.figures);
        vec![
            edge.source.to_string(),
            traffic::target(edge),
            edge.protocol.to_string(),
            traffic::security(edge.security).to_owned(),
            traffic::calls(edge.protocol, &edge.figures),
            traffic::success(&edge.figures),
            p50,
            p99,
        ]
    };
    let header = ["FROM", "TO", "PROTOCOL", "SECURED", "REQUESTS", "SUCCESS", "P50", "P99"];
    columns(&header, &edges.iter().map(row).collect::<Vec<_>>())
}

fn wide(edges: &[Edge]) -> String {
    let row = |edge: &Edge| {
        let [p50, p90, p95, p99] = traffic::latency(&edge.figures);
        vec![
            edge.source.to_string(),
            traffic::target(edge),
            edge.service.host.as_deref().unwrap_or("-").to_owned(),
            edge.protocol.to_string(),
            traffic::security(edge.security).to_owned(),
            traffic::calls(edge.protocol, &edge.figures),
            traffic::rate(edge.figures.requests_per_second),
            traffic::success(&edge.figures),
            p50,
            p90,
            p95,
            p99,
            traffic::bytes(edge.figures.sent_bytes_per_second),
            traffic::bytes(edge.figures.received_bytes_per_second),
            traffic::responses(&edge.responses),
        ]
    };
    let header = [
        "FROM",
        "TO",
        "SERVICE",
        "PROTOCOL",
        "SECURED",
        "REQUESTS",
        "RATE",
        "SUCCESS",
        "P50",
        "P90",
        "P95",
        "P99",
        "SENT",
        "RECEIVED",
        "RESPONSES",
    ];
    columns(&header, &edges.iter().map(row).collect::<Vec<_>>())
}

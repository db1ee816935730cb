//! `lateen top`: who calls whom at present, busiest first; a table that is kept up to date in a terminal, lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use lateen_control::traffic::view::{Edge, Traffic};

use super::StateOption;
use super::exec::terminal;
use super::traffic::{self, Window};
use crate::api::{ControlPlane, Snapshots};
use crate::runtime::paint::{FAINT, PLAIN, STRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only calls from or to workloads of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    /// How far back to look: 10s, 1m, up to 30m.
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = traffic::window)]
    window: String,
    /// End after so many tables.
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    #[command(flatten)]
    state: StateOption,
}

/// How long to wait for a control plane that has gone away, before asking again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let control_plane = ControlPlane::at(&state.lateend_socket());
    super::block_on(follow(arguments, &control_plane))?;
    Ok(ExitCode::SUCCESS)
}

async fn follow(arguments: &Arguments, control_plane: &ControlPlane) -> anyhow::Result<()> {
    let window = Window { window: arguments.window.clone() };
    // Who cannot be asked at first is told of; a control plane that is started anew later is waited for.
    let mut snapshots = Some(control_plane.follow_traffic(&window.window).await?);
    let mut left = arguments.count;
    loop {
        match next(&mut snapshots).await {
            Some(mut snapshot) => {
                if let Some(namespace) = &arguments.namespace {
                    traffic::of_namespace(&mut snapshot, namespace);
                }
                if !show(&snapshot) {
                    return Ok(());
                }
                left = left.map(|left| left.saturating_sub(1));
                if left == Some(0) {
                    return Ok(());
                }
            }
            None => {
                tokio::time::sleep(AGAIN).await;
                snapshots = control_plane.follow_traffic(&window.window).await.ok();
            }
        }
    }
}

async fn next(snapshots: &mut Option<Snapshots>) -> Option<Traffic> {
    match snapshots {
        Some(open) => open.next().await.unwrap_or_default(),
        None => None,
    }
}

/// Whether anybody reads on.
fn show(snapshot: &Traffic) -> bool {
    let mut edges: Vec<&Edge> = snapshot.edges.iter().collect();
    edges.sort_by(|one, other| other.figures.requests_per_second.total_cmp(&one.figures.requests_per_second));
    let mut out = io::stdout();
    let written = if out.is_terminal() {
        let (columns, lines) = terminal::shape().unwrap_or((80, 24));
        let rows = rows(&edges, columns);
        let seconds = snapshot.window_seconds;
        let about = match edges.len() {
            0 => traffic::nothing(snapshot),
            count => format!("{count} edges in the last {seconds} s, told by {} proxies", snapshot.reporting),
        };
        let shown: Vec<&str> = rows.iter().map(String::as_str).take(lines.saturating_sub(3)).collect();
        let (header, rest) = shown.split_first().unwrap_or((&"", &[]));
        let is_plain = anstream::AutoStream::choice(&out) == anstream::ColorChoice::Never;
        let [faint, strong, plain] = match is_plain {
            true => [const { String::new() }; 3],
            false => [FAINT.to_string(), STRONG.to_string(), PLAIN.to_string()],
        };
        // From the first line down, over what was there; what is left of that is taken away.
        let rest: String = rest.iter().map(|row| format!("{row}\x1b[K\n")).collect();
        let about: String = about.chars().take(columns).collect();
        write!(out, "\x1b[H{faint}{about}{plain}\x1b[K\n{strong}{header}{plain}\x1b[K\n{rest}\x1b[J")
    } else {
        let mut rows = rows(&edges, usize::MAX);
        let at = &snapshot.at;
        let lines: String = rows.drain(1..).map(|row| format!("{at}   {row}\n")).collect();
        write!(out, "{lines}")
    };
    written.and_then(|()| out.flush()).is_ok()
}

/// A column, and how soon it is left out where there is not enough room: never those of rank 0.
type Column = (&'static str, u8, fn(&Edge) -> String);

const COLUMNS: [Column; 10] = [
    ("FROM", 0, |edge| edge.source.to_string()),
    ("TO", 0, traffic::target),
    ("PROTOCOL", 2, |edge| edge.protocol.to_string()),
    ("SECURED", 3, |edge| traffic::security(edge.security).to_owned()),
    ("RATE", 0, |edge| traffic::rate(edge.figures.requests_per_second)),
    ("SUCCESS", 0, |edge| traffic::success(&edge.figures)),
    ("P50", 4, |edge| traffic::latency(&edge.figures)[0].clone()),
    ("P99", 1, |edge| traffic::latency(&edge.figures)[3].clone()),
    ("SENT", 6, |edge| traffic::bytes(edge.figures.sent_bytes_per_second)),
    ("RECEIVED", 5, |edge| traffic::bytes(edge.figures.received_bytes_per_second)),
];

/// A header and a line for each edge, no longer than that: names are cut, and then columns left out.
fn rows(edges: &[&Edge], width: usize) -> Vec<String> {
    let cell = |rank: u8, text: String| match rank {
        0 => cut(text, (width / 4).max(1)),
        _ => text,
    };
    let cells: Vec<(&str, u8, Vec<String>)> = COLUMNS
        .iter()
        .map(|(name, rank, of)| (*name, *rank, edges.iter().map(|edge| cell(*rank, of(edge))).collect()))
        .collect();
    let longest = |(name, _, cells): &(&str, u8, Vec<String>)| {
        cells.iter().map(|cell| cell.chars().count()).chain([name.len()]).max().unwrap_or_default()
    };
    let mut most = u8::MAX;
    let whole = |most: u8| {
        let shown = cells.iter().filter(|(_, rank, _)| *rank < most);
        shown.map(|column| longest(column) + 3).sum::<usize>().saturating_sub(3)
    };
    while most > 1 && whole(most) > width {
        most = if most == u8::MAX { 6 } else { most - 1 };
    }
    let shown: Vec<_> = cells.iter().filter(|(_, rank, _)| *rank < most).collect();
    let header: Vec<&str> = shown.iter().map(|(name, ..)| *name).collect();
    let rows: Vec<Vec<String>> =
        (0..edges.len()).map(|row| shown.iter().map(|(.., cells)| cells[row].clone()).collect()).collect();
    super::columns::columns(&header, &rows).lines().map(|line| line.chars().take(width).collect()).collect()
}

fn cut(text: String, most: usize) -> String {
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_left_out_in_order_of_importance() {
        let end = |workload: &str| json!({"workload": workload, "namespace": "default"});
        let edge: Edge = serde_json::from_value(json!({
            "source": end("productpage-v1"), "destination": end("reviews-v2"), "service": {}, "protocol": "http",
            "security": "mutual_tls", "reporter": "both", "requests": 20, "errors": 0, "connectionsOpened": 0,
            "connectionsClosed": 0, "requestsPerSecond": 2.0, "errorShare": 0.0,
            "latency": {"p50": 3.0, "p90": 5.0, "p95": 6.0, "p99": 7.0}, "sentBytesPerSecond": 0.0,
            "receivedBytesPerSecond": 100.0, "responses": [],
        }))
        .expect("it is an edge");
        let header = |width| rows(&[&edge], width)[0].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(header(usize::MAX).len(), 10);
        assert_eq!(header(112), ["FROM", "TO", "PROTOCOL", "SECURED", "RATE", "SUCCESS", "P50", "P99", "RECEIVED"]);
        assert_eq!(header(80), ["FROM", "TO", "PROTOCOL", "RATE", "SUCCESS", "P99"]);
        assert_eq!(header(44), ["FROM", "TO", "RATE", "SUCCESS"]);
        assert_eq!(rows(&[&edge], 44)[1], "productpag…   reviews-v2…   2.0/s   100.00%");
        assert!(rows(&[&edge], 10).iter().all(|row| row.chars().count() <= 10));
    }
}

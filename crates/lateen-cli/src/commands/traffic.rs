//! Live traffic as `edges`, `stat` and `top` show it: what is looked at, and how figures are written.

use clap::{Args, ValueEnum};
use lateen_control::traffic::view::{Edge, End, Figures, Protocol, Responses, Security, Traffic};

use crate::api::ControlPlane;
use crate::runtime::state_dir::StateDir;

/// What is looked at.
#[derive(Debug, Args)]
pub(super) struct Window {
    /// How far back to look: 10s, 1m, up to 30m.
    #[arg(short, long, value_name = "TIME", default_value = "1m", value_parser = window)]
    pub(super) window: String,
}

/// For people, for people with wide terminals, or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Wide,
    Json,
}

/// As the control plane takes it.
pub(super) fn window(text: &str) -> Result<String, String> {
    let written = if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    let parsed = written.parse::<jiff::SignedDuration>().ok();
    match parsed {
        Some(time) if time.subsec_nanos() == 0 && (1..=1800).contains(&time.as_secs()) => {
            Ok(format!("{}s", time.as_secs()))
        }
        _ => Err("a time of whole seconds up to 30m is expected, such as 10s or 5m".to_owned()),
    }
}

/// What the control plane of the running mesh knows.
pub(super) fn ask(state: &StateDir, window: &Window) -> anyhow::Result<Traffic> {
    super::block_on(ControlPlane::at(&state.lateend_socket()).traffic(&window.window))
}

/// Leaves calls from and to workloads of a namespace, and workloads of it.
pub(super) fn of_namespace(traffic: &mut Traffic, namespace: &str) {
    let is_there = |end: &End| end.namespace.as_deref() == Some(namespace);
    traffic.edges.retain(|edge| is_there(&edge.source) || is_there(&edge.destination));
    traffic.workloads.retain(|served| is_there(&served.workload));
}

/// What to say where nothing is to be shown.
pub(super) fn nothing(traffic: &Traffic) -> String {
    let seconds = traffic.window_seconds;
    match traffic.reporting {
        0 => "no proxy tells of traffic".to_owned(),
        _ => format!("nobody has called anybody in the last {seconds} s"),
    }
}

/// Where calls lead: a workload, or the service where none was reached.
pub(super) fn target(edge: &Edge) -> String {
    match (&edge.destination.workload, &edge.service.name) {
        (None, Some(service)) => format!("{service} (service)"),
        _ => edge.destination.to_string(),
    }
}

pub(super) fn security(security: Security) -> &'static str {
    match security {
        Security::MutualTls => "mutual TLS",
        Security::None => "no",
        Security::Mixed => "partly",
        Security::Unknown => "unknown",
    }
}

/// Requests, or connections of TCP.
pub(super) fn calls(protocol: Protocol, figures: &Figures) -> String {
    match protocol {
        Protocol::Tcp => figures.connections_opened.to_string(),
        Protocol::Http | Protocol::Grpc => figures.requests.to_string(),
    }
}

pub(super) fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}

pub(super) fn success(figures: &Figures) -> String {
    figures.error_share.map_or_else(nothing_known, |share| format!("{:.2}%", 100.0 * (1.0 - share)))
}

/// The median and the 90th, 95th and 99th of a hundred.
pub(super) fn latency(figures: &Figures) -> [String; 4] {
    let Some(latency) = figures.latency else { return [(); 4].map(|()| nothing_known()) };
    [latency.p50, latency.p90, latency.p95, latency.p99].map(milliseconds)
}

fn nothing_known() -> String {
    "-".to_owned()
}

pub(super) fn milliseconds(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.1}ms"),
        _ if value < 10_000.0 => format!("{value:.0}ms"),
        _ => format!("{:.0}s", value / 1000.0),
    }
}

pub(super) fn bytes(per_second: f64) -> String {
    let (mut value, mut unit) = (per_second, "B/s");
    for larger in ["kB/s", "MB/s", "GB/s"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    if value < 10.0 && unit != "B/s" { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// `200: 118, 503 UF: 2`.
pub(super) fn responses(all: &[Responses]) -> String {
    let one = |it: &Responses| {
        let status = it.grpc_status.as_ref().map(|status| format!("grpc {status}"));
        let how = [it.code.as_deref(), status.as_deref(), it.flags.as_deref()];
        let how: Vec<&str> = how.into_iter().flatten().collect();
        format!("{}: {}", if how.is_empty() { "other".to_owned() } else { how.join(" ") }, it.count)
    };
    if all.is_empty() { nothing_known() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_taken_as_people_write_them() {
        for (text, wanted) in
            [("10s", "10s"), ("90", "90s"), ("1m30s", "90s"), ("30m", "1800s"), ("1h", ""), ("0", ""), ("x", "")]
        {
            assert_eq!(window(text).unwrap_or_default(), wanted, "{text}");
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0.25, 9.96, 320.4].map(rate), ["0.2/s", "10.0/s", "320/s"]);
        assert_eq!([0.4, 12.3, 20_000.0].map(milliseconds), ["0.4ms", "12ms", "20s"]);
        assert_eq!([0.0, 999.0, 1_500.0, 25_000_000.0].map(bytes), ["0B/s", "999B/s", "1.5kB/s", "25MB/s"]);
        let answer = |code: &str, flags: Option<&str>, count| Responses {
            code: Some(code.into()),
            grpc_status: None,
            flags: flags.map(Into::into),
            count,
        };
        assert_eq!(responses(&[answer("200", None, 9), answer("503", Some("UF"), 1)]), "200: 9, 503 UF: 1");
    }
}

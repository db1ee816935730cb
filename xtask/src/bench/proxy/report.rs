//! The results as people read them: what Lateen costs where Envoy costs 1, then everything else.

use std::fmt::Write as _;

use serde_json::Value;

use super::chart;
use super::results::Results;
use super::scenario::{SCENARIOS, Scenario};
use crate::bench::document;
use crate::root;

/// Scenarios that are not about requests, in the order of the tables.
pub(crate) const OTHER: [(&str, &str); 6] = [
    ("start", "a trivial configuration"),
    ("memory", "idle HTTP/1.1 clients"),
    ("memory-pair", "idle HTTP/1.1 clients, two proxies, mutual TLS between them"),
    ("memory-tcp", "idle TCP clients"),
    ("memory-tcppair", "idle TCP clients, two proxies, mutual TLS between them"),
    ("memory-services", "1,000 services of ten pods, a cluster and a virtual host for each"),
];

pub(crate) fn write(results: &Results) -> anyhow::Result<()> {
    document::replace("proxy", &markdown(results))?;
    Ok(std::fs::write(root().join("docs/performance.svg"), chart::svg(results))?)
}

fn markdown(results: &Results) -> String {
    let machine = results.machine();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "Machine: {} processors, {}, Linux {}. {}\n\n",
        machine["processors"],
        text(&machine["model"]),
        text(&machine["kernel"]),
        versions(results)
    );
    out += "![CPU per request, Envoy being 1](performance.svg)\n\n";
    ratios(&mut out, results);
    missed(&mut out, results);
    other(&mut out, results);
    goals(&mut out, results);
    absolute(&mut out, results);
    out
}

/// Each peer with the versions that were measured.
fn versions(results: &Results) -> String {
    let mut found: Vec<String> = Vec::new();
    for name in results.names() {
        let peers = results.scenario(name).and_then(|scenario| scenario["peers"].as_object());
        // Lateen is one program, whatever it tells.
        for (peer, row) in peers.into_iter().flatten().filter(|(peer, _)| *peer != "quiet") {
            let version = row["version"].as_str().unwrap_or_default();
            let named = format!("{} {version}", title(peer));
            if !version.is_empty() && !found.contains(&named) {
                found.push(named);
            }
        }
    }
    format!("Measured: {}.", found.join(", "))
}

pub(crate) fn title(peer: &str) -> &str {
    match peer {
        "lateen" => "Lateen",
        "quiet" => "Lateen, telling nothing",
        "envoy" => "Envoy",
        "haproxy" => "HAProxy",
        other => other,
    }
}

/// A peer's figure divided by Envoy's of the same run.
pub(crate) fn ratio(results: &Results, scenario: &str, peer: &str, key: &str) -> Option<f64> {
    between(results, scenario, [peer, "envoy"], key)
}

/// A peer's figure divided by another's.
fn between(results: &Results, scenario: &str, [one, other]: [&str; 2], key: &str) -> Option<f64> {
    let peers = &results.scenario(scenario)?["peers"];
    let (own, others) = (peers[one][key].as_f64()?, peers[other][key].as_f64()?);
    (others > 0.0).then_some(own / others)
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

fn measured(results: &Results) -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().filter(|scenario| results.scenario(scenario.name).is_some())
}

fn ratios(out: &mut String, results: &Results) {
    *out += "Ratios to Envoy, which is 1 in every column. Lower is better, but for throughput. Columns without a name are \
             Lateen's.\n\n\
             | scenario | CPU per request | target | nginx | HAProxy | CPU at a low rate | p50 | p99 | throughput | peak memory |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n";
    for scenario in measured(results) {
        let of = |peer, key| cell(ratio(results, scenario.name, peer, key));
        let cpu = ratio(results, scenario.name, "lateen", "cpu_us_best");
        let _ = writeln!(
            out,
            "| `{}`: {} | **{}** | {:.2} | {} | {} | {} | {} | {} | {} | {} |",
            scenario.name,
            scenario.what,
            cell(cpu),
            scenario.target,
            of("nginx", "cpu_us_best"),
            of("haproxy", "cpu_us_best"),
            of("lateen", "paced_cpu_us"),
            of("lateen", "p50_us"),
            of("lateen", "p99_us"),
            of("lateen", "per_second"),
            of("lateen", "peak_bytes"),
        );
    }
    *out += "\n";
}

/// Said as plainly as what went well.
fn missed(out: &mut String, results: &Results) {
    let missed: Vec<String> = measured(results)
        .filter_map(|scenario| {
            let cpu = ratio(results, scenario.name, "lateen", "cpu_us_best")?;
            // As the table shows it: to two digits.
            ((cpu * 100.0).round() > (scenario.target * 100.0).round())
                .then(|| format!("`{}` costs {cpu:.2} (target {:.2})", scenario.name, scenario.target))
        })
        .collect();
    if missed.is_empty() {
        *out += "No target is missed.\n\n";
    } else {
        let _ = write!(out, "**Missed targets**: {}.\n\n", missed.join(", "));
    }
}

fn other(out: &mut String, results: &Results) {
    if OTHER.iter().all(|(name, _)| results.scenario(name).is_none()) {
        return;
    }
    *out += "Start-up is from the start of the program until it listens. Memory is what is resident, of all processes: before \
             anybody connects, after a request to each service (`used`), and for each client that has had one answer and keeps \
             its connection.\n\n\
             | scenario | peer | start, ms | resident, MB | used, MB | per 1,000 clients, MB | wrong |\n\
             | --- | --- | --: | --: | --: | --: | --: |\n";
    for (name, what) in OTHER {
        let peers = results.scenario(name).and_then(|scenario| scenario["peers"].as_object());
        for (peer, row) in peers.into_iter().flatten() {
            let figure = |key: &str, scale: f64| {
                row[key].as_f64().map_or_else(|| "–".to_owned(), |value| format!("{:.1}", value * scale))
            };
            let _ = writeln!(
                out,
                "| `{name}`: {what} | {} | {} | {} | {} | {} | {} |",
                title(peer),
                figure("start_ms", 1.0),
                figure("idle_bytes", 1e-6),
                figure("used_bytes", 1e-6),
                figure("bytes_per_connection", 1e-3),
                wrong(row),
            );
        }
    }
    *out += "\n";
}

/// A target that is not CPU per request.
struct Goal {
    scenario: &'static str,
    what: &'static str,
    key: &'static str,
    /// In what the figure is told: a share of another's, or so many of its own unit.
    of: Of,
    most: f64,
}

enum Of {
    Envoy,
    /// Of what Lateen needs without telling anything.
    Quiet,
    One(f64),
}

#[rustfmt::skip]
const GOALS: [Goal; 11] = [
    Goal { scenario: "h1mesh", what: "CPU per request with access log and metrics, of that without", key: "cpu_us_best", of: Of::Quiet, most: 1.10 },
    Goal { scenario: "grpcmesh", what: "CPU per request with access log and metrics, of that without", key: "cpu_us_best", of: Of::Quiet, most: 1.10 },
    Goal { scenario: "pairmesh", what: "CPU per request at the fixed rate, of Envoy's", key: "paced_cpu_us", of: Of::Envoy, most: 0.40 },
    Goal { scenario: "pairmesh", what: "p50 at that rate, of Envoy's", key: "p50_us", of: Of::Envoy, most: 0.50 },
    Goal { scenario: "pairmesh", what: "p99 at that rate, of Envoy's", key: "p99_us", of: Of::Envoy, most: 0.50 },
    Goal { scenario: "start", what: "from exec to listening, ms", key: "start_ms", of: Of::One(1.0), most: 8.0 },
    Goal { scenario: "start", what: "resident, MB", key: "idle_bytes", of: Of::One(1e6), most: 6.0 },
    Goal { scenario: "memory", what: "for 1,000 idle clients, MB", key: "bytes_per_connection", of: Of::One(1e3), most: 4.0 },
    Goal { scenario: "memory-pair", what: "for 1,000 idle clients, MB", key: "bytes_per_connection", of: Of::One(1e3), most: 12.0 },
    Goal { scenario: "memory-services", what: "resident, of Envoy's", key: "idle_bytes", of: Of::Envoy, most: 0.20 },
    Goal { scenario: "memory-services", what: "resident when each was used, of Envoy's", key: "used_bytes", of: Of::Envoy, most: 0.20 },
];

fn goals(out: &mut String, results: &Results) {
    let reached = GOALS.iter().filter_map(|goal| {
        let value = match goal.of {
            Of::Envoy => ratio(results, goal.scenario, "lateen", goal.key)?,
            Of::Quiet => between(results, goal.scenario, ["lateen", "quiet"], goal.key)?,
            Of::One(unit) => results.scenario(goal.scenario)?["peers"]["lateen"][goal.key].as_f64()? / unit,
        };
        Some((goal, value))
    });
    let rows: Vec<String> = reached
        .map(|(goal, value)| {
            let missed = (value * 100.0).round() > (goal.most * 100.0).round();
            let note = if missed { "**missed**" } else { "" };
            format!("| `{}` | {} | {value:.2} | {:.2} | {note} |\n", goal.scenario, goal.what, goal.most)
        })
        .collect();
    if !rows.is_empty() {
        *out += "What else is to be reached:\n\n| scenario | what | reached | target | |\n| --- | --- | --: | --: | --- |\n";
        *out += &rows.concat();
        *out += "\n";
    }
}

fn wrong(row: &Value) -> String {
    match row["bad"].as_f64() {
        Some(bad) if bad > 0.0 => format!("**{bad}**: {}", row["why"].as_str().unwrap_or("?")),
        _ => "0".to_owned(),
    }
}

fn absolute(out: &mut String, results: &Results) {
    *out += "<details><summary>All figures, of this machine only</summary>\n\n\
             CPU in µs per request (of a pair: of both proxies), for bulk per megabyte; latencies in µs at the scenario's fixed \
             rate. `direct` has no proxy: the limit of the client and the upstream.\n\n";
    for scenario in measured(results) {
        let Some(known) = results.scenario(scenario.name) else { continue };
        let unit = if scenario.protocol == "bulk" { "MB/s" } else { "requests/s" };
        let rate = scenario.rate.map_or_else(|| "none".to_owned(), |rate| format!("{rate}/s"));
        let _ = write!(
            out,
            "**`{}`**, {}, {} rounds of {} s, fixed rate {rate}\n\n\
             | peer | {unit} | ± % | CPU | lowest | at the rate | p50 | p90 | p99 | p99.9 | idle MB | peak MB | wrong |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
            scenario.name,
            known["date"].as_str().unwrap_or_default(),
            known["rounds"],
            known["seconds"],
        );
        for (peer, row) in known["peers"].as_object().into_iter().flatten() {
            let figure = |key: &str, scale: f64, digits: usize| {
                row[key].as_f64().map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", value * scale))
            };
            let figures = [
                figure("per_second", 1.0, 0),
                figure("per_second_spread", 100.0, 0),
                figure("cpu_us", 1.0, 1),
                figure("cpu_us_best", 1.0, 1),
                figure("paced_cpu_us", 1.0, 1),
                figure("p50_us", 1.0, 0),
                figure("p90_us", 1.0, 0),
                figure("p99_us", 1.0, 0),
                figure("p999_us", 1.0, 0),
                figure("idle_bytes", 1e-6, 1),
                figure("peak_bytes", 1e-6, 1),
            ];
            let _ = writeln!(out, "| {} | {} | {} |", title(peer), figures.join(" | "), wrong(row));
        }
        *out += "\n";
    }
    *out += "</details>\n";
}

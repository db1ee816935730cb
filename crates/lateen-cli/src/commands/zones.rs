//! `lateen stat --zones`: bytes between zones, as the proxies of those who call have counted them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::columns::columns;
use super::pods::ThePod;
use super::proxies;
use super::traffic::Output;
use crate::runtime::state_dir::StateDir;

/// From where to where.
type Zones = (String, String);

/// Bytes to and from.
type Bytes = [u64; 2];

const METRICS: [&str; 2] = ["envoy_zone_traffic_sent_bytes_total", "envoy_zone_traffic_received_bytes_total"];

pub(super) fn show(state: &StateDir, pods: &[ThePod], output: Output) -> anyhow::Result<ExitCode> {
    let mut all: BTreeMap<Zones, Bytes> = BTreeMap::new();
    super::block_on(async {
        for pod in pods {
            add(&proxies::ask(state, pod, "GET", "/stats/prometheus").await?, &mut all);
        }
        anyhow::Ok(())
    })?;
    match output {
        Output::Json => anstream::println!("{:#}", json!({ "zones": all.iter().map(entry).collect::<Vec<_>>() })),
        Output::Table | Output::Wide if all.is_empty() => {
            anstream::println!("no traffic between workloads whose zones are known")
        }
        Output::Table | Output::Wide => anstream::println!("{}", table(&all)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds up what one proxy has counted, in Prometheus' text format.
fn add(text: &str, all: &mut BTreeMap<Zones, Bytes>) {
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some(which) = METRICS.iter().position(|metric| *metric == name) else { continue };
        let Some((tags, value)) = rest.split_once("} ") else { continue };
        let tag = |name: &str| {
            let pair = tags.split(',').find_map(|tag| tag.strip_prefix(name)?.strip_prefix("=\""))?;
            pair.strip_suffix('"').map(str::to_owned)
        };
        if let (Some(from), Some(to), Ok(count)) = (tag("source_zone"), tag("destination_zone"), value.parse::<u64>()) {
            all.entry((from, to)).or_default()[which] += count;
        }
    }
}

fn entry(((from, to), [sent, received]): (&Zones, &Bytes)) -> Value {
    json!({ "from": from, "to": to, "sentBytes": sent, "receivedBytes": received, "crossesZones": from != to })
}

fn table(all: &BTreeMap<Zones, Bytes>) -> String {
    let row = |((from, to), [sent, received]): (&Zones, &Bytes)| {
        let crosses = if from == to { "no" } else { "yes" };
        vec![from.clone(), to.clone(), crosses.to_owned(), sent.to_string(), received.to_string()]
    };
    columns(&["FROM", "TO", "CROSSES", "SENT", "RECEIVED"], &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_proxies_count_is_added_up() {
        let text = "# TYPE envoy_zone_traffic_sent_bytes_total counter\n\
                    envoy_zone_traffic_sent_bytes_total{source_zone=\"eu/a\",destination_zone=\"eu/b\"} 5\n\
                    envoy_zone_traffic_received_bytes_total{source_zone=\"eu/a\",destination_zone=\"eu/b\"} 70\n\
                    envoy_zone_traffic_received_bytes_total{source_zone=\"eu/a\",destination_zone=\"eu/a\"} 1\n\
                    envoy_server_live{} 1\n";
        let mut all = BTreeMap::new();
        add(text, &mut all);
        add(text, &mut all);
        let rows = table(&all);
        let words: Vec<Vec<&str>> = rows.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["eu/a", "eu/a", "no", "0", "2"], ["eu/a", "eu/b", "yes", "10", "140"]]);
    }
}

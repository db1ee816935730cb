//! The figures of all scenarios measured so far on this machine, kept in the tree: what is measured again replaces what was.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::peer::Peer;
use crate::root;

const PATH: &str = "docs/performance.json";

#[derive(Debug)]
pub(crate) struct Results(Value);

impl Results {
    /// What the file holds; nothing of it, if that was measured on another machine.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let machine = machine()?;
        let known = match std::fs::read_to_string(root().join(PATH)) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{PATH} is not JSON"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).with_context(|| format!("cannot read {PATH}")),
        };
        if known["machine"] == machine {
            return Ok(Self(known));
        }
        if !known.is_null() {
            eprintln!("xtask: {PATH} is of another machine ({}); its figures are dropped", known["machine"]);
        }
        Ok(Self(json!({"machine": machine, "scenarios": {}})))
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        std::fs::write(root().join(PATH), text).with_context(|| format!("cannot write {PATH}"))
    }

    pub(crate) fn machine(&self) -> &Value {
        &self.0["machine"]
    }

    /// What is known of a scenario.
    pub(crate) fn scenario(&self, name: &str) -> Option<&Value> {
        self.0["scenarios"].get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0["scenarios"].as_object().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// Takes in the rounds of a scenario, per peer.
    pub(crate) fn put(&mut self, name: &str, seconds: f64, measured: &[(&Peer, Vec<Value>)]) -> anyhow::Result<()> {
        let mut peers = Map::new();
        for (peer, rounds) in measured {
            let mut row = summary(rounds);
            row.insert("version".to_owned(), peer.version.as_str().into());
            peers.insert(peer.kind.name().to_owned(), row.into());
        }
        let rounds = measured.iter().map(|(_, rounds)| rounds.len()).max().unwrap_or_default();
        self.0["scenarios"][name] = json!({"date": date()?, "rounds": rounds, "seconds": seconds, "peers": peers});
        Ok(())
    }
}

/// Medians over the rounds; of the throughput also half the range, of the CPU also the lowest, of wrong answers the sum.
fn summary(rounds: &[Value]) -> Map<String, Value> {
    let mut row = Map::new();
    let Some(Value::Object(first)) = rounds.first() else { return row };
    for key in first.keys() {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        let (Some(lowest), Some(highest)) = (values.first(), values.last()) else { continue };
        let middle = median(&values);
        match key.as_str() {
            "bad" => _ = row.insert(key.clone(), values.iter().sum::<f64>().into()),
            "per_second" => {
                row.insert("per_second_spread".to_owned(), rounded((highest - lowest) / 2.0 / middle).into());
                row.insert(key.clone(), rounded(middle).into());
            }
            "cpu_us" => {
                row.insert("cpu_us_best".to_owned(), rounded(*lowest).into());
                row.insert(key.clone(), rounded(middle).into());
            }
            _ => _ = row.insert(key.clone(), rounded(middle).into()),
        }
    }
    let why = rounds.iter().map(|round| &round["why"]).find(|why| !why.is_null());
    row.insert("why".to_owned(), why.cloned().unwrap_or_default());
    row
}

/// Of sorted values, at least one.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// To four significant digits: what is behind them is noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn machine() -> anyhow::Result<Value> {
    let information = std::fs::read_to_string("/proc/cpuinfo").context("cannot tell the processor")?;
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell the kernel")?;
    let processors = std::thread::available_parallelism()?.get();
    Ok(json!({"processors": processors, "model": model.unwrap_or(std::env::consts::ARCH), "kernel": kernel.trim()}))
}

pub(crate) fn date() -> anyhow::Result<String> {
    let output = std::process::Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().context("cannot run date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{rounded, summary};

    #[test]
    fn rounds_become_medians_and_the_lowest_cost() {
        let round = |rate: f64, cpu: f64, bad: u32| json!({"per_second": rate, "cpu_us": cpu, "bad": bad, "why": null});
        let row = summary(&[round(90.0, 12.0, 0), round(110.0, 10.0, 2), round(100.0, 30.0, 1)]);
        let expected = json!({"per_second_spread": 0.1, "per_second": 100.0, "cpu_us_best": 10.0, "cpu_us": 12.0, "bad": 3.0, "why": null});
        assert_eq!(json!(row), expected);
    }

    #[test]
    fn what_is_beyond_four_digits_is_dropped() {
        for (value, expected) in [(0.0, 0.0), (12345.678, 12350.0), (0.123456, 0.1235), (7.0, 7.0)] {
            assert!((rounded(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}

//! How many instructions lateen-proxy spends on one request, counted by valgrind's callgrind: a figure that noise does not
//! touch, so that a change which costs something is seen at once.
//!
//! Two runs differ in nothing but the number of requests, sent one after the other on one connection; what they differ by,
//! divided by the requests, is the price of one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::config::{self, Files};
use super::load::Load;
use super::process::{Place, Processors, Running, free_port};
use super::scenario::{self, Scenario};
use super::{Folder, peer, results};
use crate::{install, root, target};

const SCENARIOS: [&str; 8] = ["h1", "h1mesh", "h2h1", "h2", "grpc", "grpcmesh", "pair", "tcp"];
const FEW: u32 = 500;
const MANY: u32 = 2500;
/// Growth that is let pass: two counts of the same program differ by up to 0.6 %.
const TOLERANCE: f64 = 0.03;
const PATH: &str = "xtask/instructions.json";
/// Callgrind is some fifty times slower than the processor.
const LIMIT: Duration = Duration::from_secs(120);

/// `cargo xtask bench instructions [--record]`.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    match arguments {
        [] => check(),
        [option] if option == "--record" => {
            let Some(valgrind) = valgrind()? else { bail!("nothing is recorded") };
            let counts = count_all(valgrind)?;
            let record = json!({
                "date": results::date()?,
                "rustc": rustc()?,
                "architecture": std::env::consts::ARCH,
                "instructions_per_request": counts,
            });
            std::fs::write(root().join(PATH), serde_json::to_string_pretty(&record)? + "\n")
                .with_context(|| format!("cannot write {PATH}"))
        }
        other => bail!("bench instructions takes --record or nothing, not {other:?}"),
    }
}

/// Counts, and fails where there is more than was recorded.
fn check() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join(PATH)).with_context(|| format!("cannot read {PATH}"))?;
    let record: Value = serde_json::from_str(&text).with_context(|| format!("{PATH} is not JSON"))?;
    if record["architecture"] != std::env::consts::ARCH {
        eprintln!("xtask: LEFT OUT: {PATH} holds counts for {}, not for this machine", record["architecture"]);
        return Ok(());
    }
    let Some(valgrind) = valgrind()? else {
        if std::env::var_os("CI").is_some() {
            bail!("without valgrind nothing counts instructions");
        }
        return Ok(());
    };
    let rustc = rustc()?;
    if record["rustc"] != rustc.as_str() {
        eprintln!("xtask: {PATH} was recorded with {}, this is {rustc}", record["rustc"]);
    }
    let grown = grown(&record["instructions_per_request"], &count_all(valgrind)?);
    if !grown.is_empty() {
        bail!(
            "requests cost more than {PATH} says; if that is the price of what you did, record it by \
             `cargo xtask bench instructions --record`:\n  {}",
            grown.join("\n  ")
        );
    }
    Ok(())
}

fn grown(recorded: &Value, counted: &Map<String, Value>) -> Vec<String> {
    let mut grown = Vec::new();
    for (name, now) in counted {
        let (Some(now), Some(then)) = (now.as_f64(), recorded[name].as_f64()) else {
            grown.push(format!("{name}: {now}, and no count is recorded"));
            continue;
        };
        let change = now / then - 1.0;
        if change > TOLERANCE {
            grown.push(format!("{name}: {now} instead of {then}, {:+.1} %", change * 100.0));
        } else if change < -TOLERANCE {
            eprintln!("xtask: {name}: {now} instead of {then} ({:+.1} %): worth recording", change * 100.0);
        }
    }
    grown
}

fn valgrind() -> anyhow::Result<Option<PathBuf>> {
    install::from_archive("valgrind", &["valgrind"])
}

fn rustc() -> anyhow::Result<String> {
    let output = std::process::Command::new("rustc").arg("--version").current_dir(root()).output();
    Ok(String::from_utf8(output.context("cannot run rustc")?.stdout)?.trim().to_owned())
}

fn count_all(valgrind: PathBuf) -> anyhow::Result<Map<String, Value>> {
    let load = Load { program: peer::build()?, processors: Processors::new()? };
    let folder = Folder::new("instructions")?;
    load.certificates(&folder.0)?;
    let counter = Counter { valgrind, load, folder };
    let mut counts = Map::new();
    for name in SCENARIOS {
        let scenario = scenario::find(name).with_context(|| format!("no scenario {name}"))?;
        let few = counter.count(scenario, FEW)?;
        let many = counter.count(scenario, MANY)?;
        let each = many.saturating_sub(few) / u64::from(MANY - FEW);
        eprintln!("  {name:8} {each:>8} instructions per request ({few} for {FEW} and the start)");
        counts.insert(name.to_owned(), each.into());
    }
    Ok(counts)
}

struct Counter {
    valgrind: PathBuf,
    load: Load,
    folder: Folder,
}

impl Counter {
    /// All instructions of the proxies of a scenario, from their start to their end, with so many requests between.
    fn count(&self, scenario: &Scenario, requests: u32) -> anyhow::Result<u64> {
        let (_upstream, port) = self.load.upstream(scenario.upstream_protocol())?;
        let hops = scenario.hops(port, free_port)?;
        let mut proxies = Vec::new();
        let mut logs = Vec::new();
        for (number, hop) in hops.iter().enumerate() {
            let files = Files { folder: &self.folder.0, name: &format!("hop-{number}") };
            let (path, log) = (files.own("json"), files.own("out"));
            std::fs::write(&path, config::envoy(hop, files))?;
            let mut command = self.load.processors.command(Place::Proxy, &self.valgrind);
            command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            command.arg(target().join("release/lateen-proxy")).args(["--concurrency", "1", "-c"]).arg(path);
            proxies.push(Running::server(&mut command, hop.listen, LIMIT, &log)?);
            logs.push(log);
        }
        let mut client = self.load.send(scenario.protocol, hops[0].listen, &["--requests", &requests.to_string()])?;
        let report = client.report()?;
        if report["bad"] != 0 || report["answers"] != requests {
            bail!("{}: not every answer was right: {report}", scenario.name);
        }
        drop(client);
        for proxy in &mut proxies {
            proxy.stop(LIMIT);
        }
        logs.iter().try_fold(0, |sum, log| Ok(sum + collected(&std::fs::read_to_string(log)?)?))
    }
}

/// What callgrind says at its end: `==123== Collected : 456`.
fn collected(log: &str) -> anyhow::Result<u64> {
    let line = log.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, number)| number.trim().parse().ok()).with_context(|| format!("callgrind did not count: {log}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{collected, grown};

    #[test]
    fn growth_beyond_the_tolerance_is_told() {
        let recorded = json!({"same": 1000, "noise": 1000, "more": 1000, "less": 1000});
        let counted = json!({"same": 1000, "noise": 1029, "more": 1031, "less": 500, "new": 7});
        let counted: Map<String, Value> = counted.as_object().unwrap().clone();
        let grown = grown(&recorded, &counted);
        let expected = ["more: 1031 instead of 1000, +3.1 %", "new: 7, and no count is recorded"];
        assert_eq!(grown, expected);
    }

    #[test]
    fn the_total_is_found_in_what_callgrind_says() {
        let log = "==7== Events    : Ir\n==7== Collected : 105123456\n==7== \n==7== I   refs:      105,123,456\n";
        assert_eq!(collected(log).unwrap(), 105_123_456);
        assert!(collected("no such thing").is_err());
    }
}

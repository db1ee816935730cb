//! `cargo xtask bench proxy`: lateen-proxy and its peers side by side, in turn, on the same work.

mod chart;
mod config;
pub(crate) mod instructions;
mod load;
mod measure;
mod peer;
mod process;
mod report;
mod results;
mod scenario;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use self::load::Load;
use self::measure::{Bench, Lengths};
use self::peer::{Kind, Peer};
use self::process::Processors;
use self::results::Results;
use self::scenario::{SCENARIOS, Scenario};
use crate::target;

const HELP: &str = "\
cargo xtask bench proxy [OPTION…]

  --scenarios a,b    only these; what was measured before on this machine stays in the tables
  --against a,b      peers besides lateen and direct; all of envoy,nginx,haproxy unless given
  --rounds N         how often each is measured, in turn; 3 unless given
  --quick            short runs: to see whether all works, not to be written down
";

/// How many clients are idle at once.
const IDLE_CONNECTIONS: u32 = 2000;

struct Options {
    scenarios: Vec<String>,
    peers: Vec<Kind>,
    rounds: usize,
    quick: bool,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        eprint!("{HELP}");
        return Ok(());
    }
    let options = Options::parse(arguments)?;
    let program = peer::build()?;
    let mut peers = Vec::new();
    for kind in &options.peers {
        peers.extend(Peer::find(*kind)?);
    }
    let load = Load { program, processors: Processors::new()? };
    let folder = Folder::new("proxy")?;
    load.certificates(&folder.0)?;
    let lengths = if options.quick { Lengths { warm: 0.2, seconds: 0.5 } } else { Lengths { warm: 0.5, seconds: 2.5 } };
    let bench = Bench { load: &load, folder: &folder.0, lengths };
    let mut results = Results::read()?;
    let mut wrong = Vec::new();
    for name in &options.scenarios {
        eprintln!("xtask: {name}");
        let measured = rounds(&bench, name, &peers, options.rounds)?;
        for (peer, rounds) in &measured {
            tell(peer, rounds, &mut wrong);
        }
        if !options.quick {
            results.put(name, lengths.seconds, &measured)?;
            // After each scenario: what is measured is not lost if a later one fails.
            results.write()?;
            report::write(&results)?;
        }
    }
    if !wrong.is_empty() {
        bail!("not every answer was right:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

impl Options {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let all: Vec<String> = SCENARIOS
            .iter()
            .map(|scenario| scenario.name.to_owned())
            .chain(report::OTHER.iter().map(|(name, _)| (*name).to_owned()))
            .collect();
        let mut options = Self {
            scenarios: all.clone(),
            peers: vec![Kind::Envoy, Kind::Nginx, Kind::Haproxy],
            rounds: 3,
            quick: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--scenarios" => options.scenarios = value()?.split(',').map(str::to_owned).collect(),
                "--against" => options.peers = value()?.split(',').map(peer_of_name).collect::<anyhow::Result<_>>()?,
                "--rounds" => options.rounds = value()?.parse().context("--rounds must be a number")?,
                "--quick" => (options.quick, options.rounds) = (true, 1),
                other => bail!("unknown option {other}"),
            }
        }
        if options.rounds == 0 {
            bail!("--rounds must not be 0");
        }
        if let Some(unknown) = options.scenarios.iter().find(|name| !all.contains(name)) {
            bail!("unknown scenario {unknown}: there are {}", all.join(", "));
        }
        options.peers.splice(..0, [Kind::Lateen, Kind::Quiet]);
        options.peers.push(Kind::Direct);
        Ok(options)
    }
}

fn peer_of_name(name: &str) -> anyhow::Result<Kind> {
    let kind = Kind::from_name(name).filter(|kind| matches!(kind, Kind::Envoy | Kind::Nginx | Kind::Haproxy));
    kind.with_context(|| format!("unknown peer {name}: there are envoy, nginx, haproxy"))
}

/// Every peer in turn, then in reverse order, and so on: what drifts on the machine does not favour anybody.
fn rounds<'p>(
    bench: &Bench<'_>,
    name: &str,
    peers: &'p [Peer],
    rounds: usize,
) -> anyhow::Result<Vec<(&'p Peer, Vec<Value>)>> {
    let mut measured: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for round in 0..rounds {
        let mut turn: Vec<usize> = (0..peers.len()).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for at in turn {
            let row = once(bench, name, &peers[at]).with_context(|| format!("{name}, {}", peers[at].kind.name()))?;
            measured.entry(at).or_default().extend(row);
        }
    }
    Ok(measured.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(at, rows)| (&peers[at], rows)).collect())
}

fn once(bench: &Bench<'_>, name: &str, peer: &Peer) -> anyhow::Result<Option<Value>> {
    let get = |name| scenario::find(name).with_context(|| format!("no scenario {name}"));
    let memory = |scenario: &Scenario| match peer.kind {
        Kind::Direct => Ok(None),
        _ => bench.memory(peer, scenario, IDLE_CONNECTIONS),
    };
    match name {
        "start" => bench.start_time(peer, get("h1")?),
        "memory" => memory(get("h1")?),
        "memory-pair" => memory(get("pair")?),
        "memory-tcp" => memory(get("tcp")?),
        "memory-tcppair" => memory(get("tcppair")?),
        "memory-services" => bench.memory_of_services(peer),
        _ => bench.round(peer, get(name)?),
    }
}

/// One line per round, and what was wrong in it.
fn tell(peer: &Peer, rounds: &[Value], wrong: &mut Vec<String>) {
    for row in rounds {
        let figures: Vec<String> = row
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(format!("{key} {:.1}", value.as_f64()?)))
            .collect();
        eprintln!("  {:8} {}", peer.kind.name(), figures.join("  "));
        if let Some(why) = row["why"].as_str() {
            wrong.push(format!("{}: {} wrong, the first: {why}", peer.kind.name(), row["bad"]));
        }
    }
}

/// Configurations, certificates and logs of one run; gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> anyhow::Result<Self> {
        let parent = target().join("bench").join(name);
        // What an earlier run left that was ended from outside. The folder of one that goes on is left alone.
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                std::fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        let path = parent.join(std::process::id().to_string());
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind it costs some kilobytes, and the next run removes it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

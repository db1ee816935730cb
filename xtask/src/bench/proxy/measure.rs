//! One peer, one scenario, one round.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::config::{self, Files};
use super::load::{Load, Process};
use super::peer::{Kind, Peer};
use super::process::{Running, Usage, free_port};
use super::scenario::Scenario;

/// How long each part of a round takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) warm: f64,
    pub(crate) seconds: f64,
}

/// What all measurements share.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) load: &'a Load,
    pub(crate) folder: &'a Path,
    pub(crate) lengths: Lengths,
}

/// The proxies between client and upstream (none for `direct`), and where the client is to send.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) proxies: Vec<Running>,
    pub(crate) port: u16,
}

impl Chain {
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.proxies.iter().try_fold(Usage::default(), |sum, proxy| Ok(sum + proxy.usage()?))
    }
}

const START_LIMIT: Duration = Duration::from_secs(20);
/// What is still done after a start, before anything is measured.
const SETTLE: Duration = Duration::from_millis(500);

/// Of the configuration whose memory is measured.
pub(crate) const SERVICES: u16 = 1000;
const PODS: u8 = 10;

impl Bench<'_> {
    /// `None` where the peer has no part in the scenario.
    pub(crate) fn start(&self, peer: &Peer, scenario: &Scenario, upstream: u16) -> anyhow::Result<Option<Chain>> {
        if peer.kind == Kind::Direct {
            // They must speak the same.
            if scenario.protocol != scenario.upstream_protocol() {
                return Ok(None);
            }
            return Ok(Some(Chain { proxies: Vec::new(), port: upstream }));
        }
        let hops = scenario.hops(upstream, free_port)?;
        let mut proxies = Vec::new();
        for (number, hop) in hops.iter().enumerate() {
            let name = format!("{}-{number}", peer.kind.name());
            let files = Files { folder: self.folder, name: &name };
            let Some(mut command) = peer.command(hop, files, self.load.processors)? else { return Ok(None) };
            proxies.push(Running::server(&mut command, hop.listen, START_LIMIT, &files.own("out"))?);
        }
        Ok(Some(Chain { proxies, port: hops[0].listen }))
    }

    /// The figures of one round, or `None` where the peer has no part in the scenario.
    pub(crate) fn round(&self, peer: &Peer, scenario: &Scenario) -> anyhow::Result<Option<Value>> {
        let (_upstream, port) = self.load.upstream(scenario.upstream_protocol())?;
        let Some(chain) = self.start(peer, scenario, port)? else { return Ok(None) };
        sleep(SETTLE);
        let idle = chain.usage()?;
        let full = self.timed(&chain, scenario, None)?;
        let mut row = json!({
            "per_second": full.done / full.seconds,
            "cpu_us": full.cpu_us,
            "idle_bytes": idle.resident,
            "bad": full.report["bad"],
            "why": full.report["why"],
        });
        if let Some(rate) = scenario.rate {
            let paced = self.timed(&chain, scenario, Some(rate))?;
            row["paced_cpu_us"] = paced.cpu_us.into();
            for percentile in ["p50_us", "p90_us", "p99_us", "p999_us"] {
                row[percentile] = paced.report[percentile].clone();
            }
            row["bad"] = (number(&row["bad"])? + number(&paced.report["bad"])?).into();
            if row["why"].is_null() {
                row["why"] = paced.report["why"].clone();
            }
        }
        row["peak_bytes"] = chain.usage()?.peak.into();
        Ok(Some(row))
    }

    /// One load, closed or at a rate.
    fn timed(&self, chain: &Chain, scenario: &Scenario, rate: Option<u32>) -> anyhow::Result<Timed> {
        let Lengths { warm, seconds } = self.lengths;
        let mut more = vec!["--warm".to_owned(), warm.to_string(), "--seconds".to_owned(), seconds.to_string()];
        if let Some(rate) = rate {
            more.extend(["--rate".to_owned(), rate.to_string()]);
        }
        let mut client = self.load.client(scenario, chain.port, &more)?;
        client.wait_for("begin")?;
        let before = chain.usage()?;
        client.wait_for("end")?;
        let after = chain.usage()?;
        let report = client.report()?;
        let done =
            if scenario.protocol == "bulk" { number(&report["bytes"])? / 1e6 } else { number(&report["answers"])? };
        let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6;
        let seconds = number(&report["seconds"])?;
        Ok(Timed { done, seconds, cpu_us: cpu / done.max(1.0), report })
    }

    /// Resident memory with and without this many idle connections, each of which has sent one request.
    pub(crate) fn memory(&self, peer: &Peer, scenario: &Scenario, connections: u32) -> anyhow::Result<Option<Value>> {
        let (_upstream, port) = self.load.upstream(scenario.upstream_protocol())?;
        let Some(chain) = self.start(peer, scenario, port)? else { return Ok(None) };
        sleep(SETTLE * 2);
        let before = chain.usage()?;
        let mut client = self.idle(scenario, chain.port, connections)?;
        client.wait_for("begin")?;
        // What a proxy gives back, it gives back within a moment.
        sleep(SETTLE * 4);
        let with = chain.usage()?;
        client.close_input();
        let report = client.report()?;
        let grown = with.resident.saturating_sub(before.resident);
        Ok(Some(json!({
            "idle_bytes": before.resident,
            "bytes_per_connection": grown as f64 / f64::from(connections),
            "bad": report["bad"],
            "why": report["why"],
        })))
    }

    /// Resident memory with 1,000 services of ten pods each in the configuration: once it is loaded, and after a request to
    /// each of them. `None` for peers that have no such configuration.
    pub(crate) fn memory_of_services(&self, peer: &Peer) -> anyhow::Result<Option<Value>> {
        if !matches!(peer.kind, Kind::Lateen | Kind::Envoy) {
            return Ok(None);
        }
        let (_upstream, port) = self.load.upstream_at("h1", Ipv4Addr::UNSPECIFIED)?;
        let listen = free_port()?;
        let files = Files { folder: self.folder, name: peer.kind.name() };
        let text = config::envoy_of_services(listen, port, SERVICES, PODS);
        let mut command = peer.with(&text, &files.own("json"), self.load.processors)?;
        let proxy = Running::server(&mut command, listen, START_LIMIT, &files.own("out"))?;
        sleep(SETTLE * 4);
        let loaded = proxy.usage()?.resident;
        let services = SERVICES.to_string();
        let mut client = self.load.send("h1", listen, &["--requests", &services, "--hosts", &services])?;
        let report = client.report()?;
        sleep(SETTLE * 4);
        let used = proxy.usage()?.resident;
        Ok(Some(json!({"idle_bytes": loaded, "used_bytes": used, "bad": report["bad"], "why": report["why"]})))
    }

    fn idle(&self, scenario: &Scenario, port: u16, connections: u32) -> anyhow::Result<Process> {
        self.load.send(scenario.protocol, port, &["--idle", "--connections", &connections.to_string()])
    }

    /// From the start of the program until it listens, and what it occupies then.
    pub(crate) fn start_time(&self, peer: &Peer, scenario: &Scenario) -> anyhow::Result<Option<Value>> {
        let (_upstream, port) = self.load.upstream(scenario.upstream_protocol())?;
        let Some(chain) = self.start(peer, scenario, port)? else { return Ok(None) };
        sleep(SETTLE * 2);
        let Some(proxy) = chain.proxies.first() else { return Ok(None) };
        let start = proxy.start.as_secs_f64() * 1000.0;
        Ok(Some(json!({"start_ms": start, "idle_bytes": chain.usage()?.resident, "bad": 0, "why": null})))
    }
}

struct Timed {
    /// Requests; megabytes where bytes are all there is.
    done: f64,
    seconds: f64,
    cpu_us: f64,
    report: Value,
}

fn number(value: &Value) -> anyhow::Result<f64> {
    value.as_f64().with_context(|| format!("{value} is not a number"))
}

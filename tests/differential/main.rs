//! One bootstrap, two proxies: each row of `requests/*.yaml` is sent to a real Envoy and to `lateen-proxy` running the
//! same file of `configs/`, and both the answers and what the upstream saw must be the same.

mod authorizer;
mod certificates;
mod client;
mod explained;
mod limiter;
mod proxy;
mod table;
mod tokens;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proxy::{Difference, Observed, Proxy};
use table::{Accepted, Row, Table};
use upstream::Upstream;

/// The tables, each named as its config. Together they hold at least [`MIN_ROWS`] requests.
const TABLES: &[&str] = &[
    "routing",
    "rewriting",
    "policy",
    "resilience",
    "framing",
    "limits",
    "limiter",
    "balancing",
    "zones",
    "ext_authz",
    "jwt",
    "tls",
    "rbac",
    "tcp",
    "flags",
    "formats",
    "tunnels",
    "traces",
    "dynamic",
];
const MIN_ROWS: usize = 400;
const MIN_CONFIGS: usize = 60;

fn compare(name: &str) {
    let Some(envoy) = lateen_tests::envoy() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let table = Table::read(name);
        let accepted = Accepted::read();
        let upstream = Upstream::start().await;
        let theirs = Proxy::envoy(&envoy, name, &upstream).await;
        let ours = Proxy::lateen(name, &upstream).await;
        let mut complaints = Vec::new();
        for row in &table.rows() {
            let mut result = check(name, row, &theirs, &ours, &upstream, &accepted).await;
            for _ in 0..2 {
                // Where time decides, a machine that was away for a moment decides otherwise.
                if result.is_ok() || !row.is_of_time() {
                    break;
                }
                result = check(name, row, &theirs, &ours, &upstream, &accepted).await;
            }
            if let Err(complaint) = result {
                complaints.push(format!("{name}: {}\n{complaint}", row.name));
            }
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        for row in table.rows().iter().filter(|row| row.spans.is_some()) {
            let (envoy, lateen) =
                (theirs.spans(row, &upstream, deadline).await, ours.spans(row, &upstream, deadline).await);
            complaints.extend(complaint(name, row, proxy::differences(&envoy, &lateen), &accepted));
        }
        accepted.assert_used(name);
        assert!(
            complaints.is_empty(),
            "{} of {} rows:\n\n{}",
            complaints.len(),
            table.requests.len(),
            complaints.join("\n\n")
        );
    });
}

fn complaint(table: &str, row: &Row, found: Vec<Difference>, accepted: &Accepted) -> Option<String> {
    let found = found.into_iter().filter(|difference| !accepted.covers(table, &row.name, &difference.field));
    let lines: Vec<String> = found.map(|difference| difference.to_string()).collect();
    if lines.is_empty() { None } else { Some(format!("{table}: {}\n{}", row.name, lines.join("\n"))) }
}

async fn check(
    table: &str,
    row: &Row,
    theirs: &Proxy,
    ours: &Proxy,
    upstream: &Upstream,
    accepted: &Accepted,
) -> Result<(), String> {
    if let Some(times) = row.repeat {
        return check_shares(row, times, theirs, ours, upstream).await;
    }
    let envoy = theirs.ask(row, upstream).await;
    let lateen = ours.ask(row, upstream).await;
    if envoy.status() != row.status {
        return Err(format!("  the row says {:?}, Envoy answers {:?}", row.status, envoy.status()));
    }
    for (what, wanted, found) in
        [("log", row.log.as_deref(), envoy.log()), ("bytes", row.bytes.as_deref(), envoy.bytes())]
    {
        if wanted.is_some() && wanted != found {
            return Err(format!("  {what}\n    the row: {wanted:?}\n    envoy:   {found:?}"));
        }
    }
    let differences: Vec<String> = envoy
        .differences(&lateen)
        .into_iter()
        .filter(|difference| !(row.answer_only && difference.field.starts_with("upstream ")))
        .filter(|difference| !accepted.covers(table, &row.name, &difference.field))
        .map(|difference| difference.to_string())
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

/// What shares may differ by, in points: some four standard deviations of the difference for the 600 requests of a row.
const TOLERANCE: f64 = 12.0;

async fn check_shares(
    row: &Row,
    times: usize,
    theirs: &Proxy,
    ours: &Proxy,
    upstream: &Upstream,
) -> Result<(), String> {
    let mut shares = Vec::new();
    for proxy in [theirs, ours] {
        let mut all = Vec::with_capacity(times);
        for _ in 0..times {
            let observed = proxy.ask(row, upstream).await;
            if observed.status() != row.status {
                return Err(format!("  the row says {:?}, the answer is {:?}", row.status, observed.status()));
            }
            all.push(observed);
        }
        shares.push(Observed::shares(&all));
    }
    let of = |index: usize, host: &String| shares[index].get(host).copied().unwrap_or_default();
    let hosts: BTreeSet<&String> = shares.iter().flat_map(BTreeMap::keys).collect();
    // A host that one of them never asks must not be asked by the other.
    let differs = |host: &&&String| {
        let (envoy, lateen) = (of(0, host), of(1, host));
        (envoy - lateen).abs() > TOLERANCE || (envoy == 0.0) != (lateen == 0.0)
    };
    if hosts.iter().any(|host| differs(&host)) {
        return Err(format!("  shares\n    envoy:  {:?}\n    lateen: {:?}", shares[0], shares[1]));
    }
    Ok(())
}

/// What the suite is worth: requests, and the filter chains and virtual hosts that they are sent through.
#[test]
fn there_are_enough_rows() {
    let rows: usize = TABLES.iter().map(|name| Table::read(name).requests.len()).sum();
    let configs: usize = TABLES.iter().map(|name| Table::configs(name)).sum();
    eprintln!(
        "{rows} requests over {configs} filter chains and virtual hosts; {} accepted differences",
        Accepted::read().len()
    );
    assert!(rows >= MIN_ROWS && configs >= MIN_CONFIGS, "{rows} rows, {configs} configurations");
}

#[test]
fn rbac() {
    compare("rbac");
}

#[test]
fn ext_authz() {
    compare("ext_authz");
}

#[test]
fn routing() {
    compare("routing");
}

#[test]
fn rewriting() {
    compare("rewriting");
}

#[test]
fn policy() {
    compare("policy");
}

#[test]
fn resilience() {
    compare("resilience");
}

#[test]
fn framing() {
    compare("framing");
}

#[test]
fn limits() {
    compare("limits");
}

#[test]
fn balancing() {
    compare("balancing");
}

#[test]
fn jwt() {
    compare("jwt");
}

#[test]
fn zones() {
    compare("zones");
}

#[test]
fn limiter() {
    compare("limiter");
}

#[test]
fn tls() {
    compare("tls");
}

#[test]
fn tcp() {
    compare("tcp");
}

#[test]
fn formats() {
    compare("formats");
}

#[test]
fn flags() {
    compare("flags");
}

#[test]
fn traces() {
    compare("traces");
}

#[test]
fn tunnels() {
    compare("tunnels");
}

#[test]
fn dynamic() {
    compare("dynamic");
}

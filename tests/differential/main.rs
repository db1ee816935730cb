//! One bootstrap, two proxies: each row of `requests/*.yaml` is sent to a real Envoy and to `lateen-proxy` running the
//! same file of `configs/`, and both the answers and what the upstream saw must be the same.

mod client;
mod proxy;
mod table;
mod upstream;

use proxy::Proxy;
use table::{Accepted, Row, Table};
use upstream::Upstream;

/// The tables, each named as its config. Together they hold at least [`MIN_ROWS`] requests.
const TABLES: [&str; 6] = ["routing", "rewriting", "policy", "resilience", "framing", "limits"];
const MIN_ROWS: usize = 60;

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
        for row in &table.requests {
            if let Err(complaint) = check(name, row, &theirs, &ours, &upstream, &accepted).await {
                complaints.push(format!("{name}: {}\n{complaint}", row.name));
            }
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

async fn check(
    table: &str,
    row: &Row,
    theirs: &Proxy,
    ours: &Proxy,
    upstream: &Upstream,
    accepted: &Accepted,
) -> Result<(), String> {
    let envoy = theirs.ask(row, upstream).await;
    let lateen = ours.ask(row, upstream).await;
    if envoy.status() != row.status {
        return Err(format!("  the row says {:?}, Envoy answers {:?}", row.status, envoy.status()));
    }
    let differences: Vec<String> = envoy
        .differences(&lateen)
        .into_iter()
        .filter(|difference| !accepted.covers(table, &row.name, &difference.field))
        .map(|difference| difference.to_string())
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

#[test]
fn there_are_enough_rows() {
    let rows: usize = TABLES.iter().map(|name| Table::read(name).requests.len()).sum();
    assert!(rows >= MIN_ROWS, "{rows} rows");
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

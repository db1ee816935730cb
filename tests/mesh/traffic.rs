//! Live traffic, as the control plane knows it with nothing else installed: who calls whom, counted exactly.

use std::process::Stdio;

use lateen_testing::eventually::eventually_blocking;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::failures::one_process;
use crate::programs::Programs;
use crate::running::Mesh;

const PAGES: u64 = 30;

/// One mesh for all steps.
#[test]
fn live_traffic_is_counted_exactly_shown_and_forgotten() {
    let mesh = Mesh::up(Programs::ours());
    requests_are_counted_exactly(&mesh);
    tables_show_what_is_known(&mesh);
    let pages = PAGES + requests_are_watched_while_they_pass(&mesh);
    a_control_plane_that_was_started_anew_hears_of_what_comes(&mesh, pages);
    what_is_over_is_forgotten(&mesh);
}

/// Requests between workloads in the last half hour, by the beginnings of their names.
fn counted(mesh: &Mesh, from: &str, to: &str) -> u64 {
    let json = mesh.run(&["edges", "--window", "30m", "-o", "json"]);
    let traffic: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(traffic["dropped"], 0, "{json}");
    let is = |end: &Value, name: &str| end["workload"].as_str().is_some_and(|workload| workload.starts_with(name));
    let edges = traffic["edges"].as_array().expect("there are edges");
    let fits = |edge: &&Value| is(&edge["source"], from) && is(&edge["destination"], to);
    edges.iter().filter(fits).map(|edge| edge["requests"].as_u64().expect("a number")).sum()
}

fn requests_are_counted_exactly(mesh: &Mesh) {
    let paths = [
        ("istio-ingressgateway", "productpage-v1"),
        ("productpage-v1", "details-v1"),
        ("productpage-v1", "reviews-"),
        ("reviews-", "ratings-v1"),
    ];
    let all = |mesh: &Mesh| paths.map(|(from, to)| counted(mesh, from, to));
    let pages: Vec<String> = (0..PAGES).map(|_| mesh.get("/productpage")).collect();
    // The first version of the reviews asks nobody for ratings.
    let rated = pages.iter().filter(|page| !page.contains("<b>v1</b>")).count() as u64;
    let wanted = [PAGES, PAGES, PAGES, rated];
    eventually_blocking("everything has been told", || (all(mesh) == wanted).then_some(()));
    assert_eq!(all(mesh), wanted, "and nothing twice");
}

fn words(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn tables_show_what_is_known(mesh: &Mesh) {
    let shown = |text: &str, start: &str| {
        assert!(words(text).iter().any(|line| line.starts_with(start)), "{start}:\n{text}");
    };
    let edges = mesh.run(&["edges", "--window", "30m"]);
    shown(&edges, "FROM TO PROTOCOL SECURED REQUESTS SUCCESS P50 P99");
    shown(&edges, &format!("productpage-v1.default details-v1.default http mutual TLS {PAGES} 100.00% "));
    shown(
        &edges,
        &format!("istio-ingressgateway.istio-system productpage-v1.default http mutual TLS {PAGES} 100.00% "),
    );
    let wide = mesh.run(&["edges", "--window", "30m", "-o", "wide"]);
    shown(&wide, "productpage-v1.default details-v1.default details.default.svc.cluster.local http mutual TLS ");
    assert!(wide.contains(&format!("200: {PAGES}")), "{wide}");
    let stat = mesh.run(&["stat", "--window", "30m"]);
    shown(&stat, &format!("details-v1.default http {PAGES} "));
    let one = mesh.run(&["stat", "deploy/details-v1", "--window", "30m"]);
    assert_eq!(one.lines().count(), 2, "{one}");
    let of_gateway = mesh.run(&["edges", "-n", "istio-system", "--window", "30m"]);
    assert_eq!(of_gateway.lines().count(), 2, "{of_gateway}");
    let top = mesh.run(&["top", "--window", "30m", "--count", "2"]);
    let lines = words(&top);
    let of_details = lines.iter().filter(|line| line.contains(" productpage-v1.default details-v1.default http "));
    assert_eq!(of_details.count(), 2, "lines without a header, one a second for each edge:\n{top}");
    let complaint = mesh.fails(&["edges", "--window", "1h"]);
    assert!(complaint.contains("up to 30m"), "{complaint}");
}

/// What `lateen tap` prints of requests that are made until it has seen enough of them, and how many were made.
fn watched(mesh: &Mesh, path: &str, arguments: &[&str]) -> (Vec<Value>, u64) {
    let arguments = [&["tap", "-o", "json"], arguments].concat();
    let mut tap = mesh.lateen(&arguments).stdout(Stdio::piped()).spawn().expect("lateen can be run");
    let mut made = 0;
    eventually_blocking("enough has been seen", || {
        mesh.get(path);
        made += 1;
        tap.try_wait().expect("a child can be waited for")
    });
    let output = tap.wait_with_output().expect("it has ended");
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    (text.lines().map(read).collect(), made)
}

/// Says how many pages were made for it.
fn requests_are_watched_while_they_pass(mesh: &Mesh) -> u64 {
    let (seen, pages) = watched(mesh, "/productpage", &["--to", "details.default", "--method", "get", "--count", "3"]);
    assert_eq!(seen.len(), 3);
    for request in &seen {
        let is = |field: &str, value: &str| assert_eq!(request[field], value, "{field} of {request:#}");
        is("reporter", "source");
        is("security", "mutual_tls");
        is("protocol", "http");
        is("method", "GET");
        is("path", "/details/0");
        assert_eq!(request["status"], 200);
        assert_eq!(request["source"]["workload"], "productpage-v1");
        assert_eq!(request["destination"]["workload"], "details-v1");
        assert_eq!(request["requestHeaders"], serde_json::json!([]), "nobody has asked for them");
        assert!(request["milliseconds"].as_f64().is_some_and(|took| took > 0.0));
    }
    let arguments = ["--from", "istio-ingressgateway", "--status", "4xx", "--headers", "--count", "1"];
    let (seen, _) = watched(mesh, "/nowhere?token=abc", &arguments);
    assert_eq!((&seen[0]["status"], &seen[0]["flags"]), (&Value::from(404), &Value::from("NR")));
    assert_eq!(seen[0]["path"], "/nowhere?token=[redacted]");
    let headers = seen[0]["requestHeaders"].as_array().expect("they were asked for");
    let value = |name: &str| headers.iter().find(|it| it["name"] == name).map(|it| &it["value"]);
    assert!(value("x-request-id").is_some_and(Value::is_string), "{headers:#?}");
    assert_eq!(value("x-forwarded-for"), Some(&Value::Null), "whose it is, is somebody's own business");
    let arguments = ["--to", "details", "--bodies", "--reveal", "author", "--count", "1"];
    let (seen, more) = watched(mesh, "/productpage", &arguments);
    let body = seen[0]["responseBody"].to_string();
    assert!(body.contains("William Shakespeare"), "it was asked for: {body}");
    assert!(body.contains("ISBN-10") && !body.contains("1234567890"), "names are told, values are not: {body}");
    let complaint = mesh.fails(&["tap", "--status", "odd"]);
    assert!(complaint.contains("status: `odd` is not a status"), "{complaint}");
    pages + more
}

fn a_control_plane_that_was_started_anew_hears_of_what_comes(mesh: &Mesh, pages: u64) {
    // What a proxy has not told of when the control plane goes is told of when another is there soon.
    eventually_blocking("both proxies of a call have told of all", || {
        let stat = mesh.run(&["stat", "deploy/details-v1", "--window", "30m"]);
        let is_told = words(&stat).iter().any(|line| line.starts_with(&format!("details-v1.default http {pages} ")));
        (is_told && counted(mesh, "productpage-v1", "details-v1") == pages).then_some(())
    });
    let pods = mesh.run(&["get", "pods", "-A", "-o", "name"]);
    let proxies = pods.lines().filter(|pod| !pod.contains("outsider")).count();
    let lateend = one_process(mesh, "lateend");
    kill(Pid::from_raw(lateend), Signal::SIGKILL).expect("it runs");
    eventually_blocking("all proxies tell again", || {
        let output = mesh.lateen(&["edges", "-o", "json"]).output().ok()?;
        let traffic: Value = serde_json::from_slice(&output.stdout).ok()?;
        (traffic["reporting"].as_u64()? == proxies as u64).then_some(())
    });
    let before = counted(mesh, "productpage-v1", "details-v1");
    assert_eq!(before, 0, "what it knew is lost with it");
    (0..3).for_each(|_| assert!(mesh.get("/productpage").starts_with("HTTP/1.1 200")));
    eventually_blocking("what comes is counted", || (counted(mesh, "productpage-v1", "details-v1") == 3).then_some(()));
}

fn what_is_over_is_forgotten(mesh: &Mesh) {
    eventually_blocking("the last second is quiet", || {
        let said = mesh.run(&["edges", "--window", "1s"]);
        (said == "nobody has called anybody in the last 1 s\n").then_some(())
    });
}

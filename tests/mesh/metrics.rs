//! What proxies count of requests and connections: Istio's standard metrics, on both sides, label by label.

use std::collections::BTreeMap;

use lateen_testing::eventually::eventually_blocking;

use crate::programs::Programs;
use crate::running::Mesh;

type Labels = BTreeMap<String, String>;

/// Of one line of a scrape.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

/// A client outside of the mesh makes the difference between what a certificate says and what nobody knows.
pub(crate) fn both_sides_count_with_every_label(mesh: &Mesh) {
    let answer = mesh.ask("deploy/client", "httpbin", 8000, "/get");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = |from: &str, metric: &str, wanted: &Labels| counted(mesh, from, metric, wanted);
    let http = |reporter| with(&of_answer("http", ""), &between("client", "httpbin", reporter));
    assert_eq!(seen("deploy/client", "istio_requests_total", &http("source")), 1.0);
    assert_eq!(seen("deploy/httpbin", "istio_requests_total", &http("destination")), 1.0);
    for histogram in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        assert_eq!(seen("deploy/client", &format!("{histogram}_count"), &http("source")), 1.0);
        let last = with(&http("destination"), &labels(&[("le", "+Inf")]));
        assert_eq!(seen("deploy/httpbin", &format!("{histogram}_bucket"), &last), 1.0);
    }
    assert!(seen("deploy/httpbin", "istio_response_bytes_sum", &http("destination")) > 10.0);

    let answer = mesh.ask("deploy/outsider", "httpbin", 8000, "/status/418");
    assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
    let stranger = labels(&[
        ("source_workload", "unknown"),
        ("source_workload_namespace", "unknown"),
        ("source_principal", "unknown"),
        ("source_app", "unknown"),
        ("source_canonical_service", "unknown"),
        ("source_cluster", "unknown"),
        ("destination_principal", "unknown"),
        ("connection_security_policy", "none"),
        ("response_code", "418"),
    ]);
    assert_eq!(seen("deploy/httpbin", "istio_requests_total", &with(&http("destination"), &stranger)), 1.0);

    mesh.probe("deploy/client", &["http2", "http://rpc:7000/shop.Cart/Add"]);
    let grpc = |reporter| with(&of_answer("grpc", "0"), &between("client", "rpc", reporter));
    for (from, reporter) in [("deploy/client", "source"), ("deploy/rpc", "destination")] {
        assert_eq!(seen(from, "istio_requests_total", &grpc(reporter)), 1.0);
        let peers = between("client", "rpc", reporter);
        let peers = peers.into_iter().filter(|(name, _)| name != "connection_security_policy").collect();
        for metric in ["istio_request_messages_total", "istio_response_messages_total"] {
            seen(from, metric, &peers);
        }
    }

    let heard = mesh.converse("deploy/client", "echo", 9000, "echo there >&3; timeout 10 head -1 <&3");
    assert_eq!(heard, "heard there\n");
    let tcp = |reporter| {
        let how = labels(&[("request_protocol", "tcp"), ("response_flags", "-")]);
        with(&how, &between("client", "echo", reporter))
    };
    for (from, reporter) in [("deploy/client", "source"), ("deploy/echo", "destination")] {
        for (metric, value) in [
            ("istio_tcp_connections_opened_total", 1),
            ("istio_tcp_connections_closed_total", 1),
            ("istio_tcp_sent_bytes_total", "heard there\n".len()),
            ("istio_tcp_received_bytes_total", "there\n".len()),
        ] {
            assert_eq!(seen(from, metric, &tcp(reporter)), value as f64, "{metric} of {from}");
        }
    }
}

/// Who scrapes a pod gets the application's metrics with the proxy's, at the port that the injected annotations name.
pub(crate) fn the_applications_metrics_come_with_the_proxys(mesh: &Mesh) {
    let of = |deployment: &str| mesh.ask("deploy/outsider", &mesh.address_of(deployment), 15020, "/stats/prometheus");
    let both = of("httpbin");
    assert!(both.contains("\nsample_app_up 1\n") && both.contains("\nistio_requests_total{"), "{both}");
    assert!(both.contains("\nistio_agent_scrapes_total{} 1\n"), "{both}");
    let own = of("client");
    assert!(!own.contains("sample_app_up") && own.contains("\nistio_requests_total{"), "{own}");
    let pods = mesh.run(&["get", "pods", "-o", "json"]);
    assert!(pods.contains(r#""prometheus.io/port": "15020""#), "{pods}");
}

/// The same without any Prometheus.
pub(crate) fn the_command_tells_who_calls_whom(mesh: &Mesh) {
    let words = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let shows = |command: &str, starts: &[&str]| {
        let has = |lines: &[String], start: &str| lines.iter().any(|line| line.starts_with(start));
        eventually_blocking(&format!("`lateen {command}` shows {starts:?}"), || {
            let lines = words(&mesh.run(&[command, "--window", "30m"]));
            starts.iter().all(|start| has(&lines, start)).then_some(())
        });
    };
    shows(
        "edges",
        &[
            "client.default httpbin.default http mutual TLS 1 100.00% ",
            "unknown httpbin.default http no 1 100.00% ",
            "client.default rpc.default grpc mutual TLS 1 100.00% ",
            "client.default echo.default tcp mutual TLS 1 - - -",
        ],
    );
    shows("stat", &["httpbin.default http 2 "]);
    assert_eq!(mesh.run(&["edges", "-n", "nowhere"]), "nobody has called anybody in the last 60 s\n");
}

/// The labels of both ends.
fn between(client: &str, server: &str, reporter: &str) -> Labels {
    let account = if client == "client" { "client" } else { "default" };
    let security = if reporter == "source" { "unknown" } else { "mutual_tls" };
    let mut all = labels(&[
        ("reporter", reporter),
        ("source_principal", &format!("spiffe://cluster.local/ns/default/sa/{account}")),
        ("destination_principal", "spiffe://cluster.local/ns/default/sa/default"),
        ("destination_service", &format!("{server}.default.svc.cluster.local")),
        ("destination_service_name", server),
        ("destination_service_namespace", "default"),
        ("connection_security_policy", security),
    ]);
    for (end, name) in [("source", client), ("destination", server)] {
        for (label, value) in [
            ("workload", name),
            ("workload_namespace", "default"),
            ("app", name),
            ("version", "unknown"),
            ("canonical_service", name),
            ("canonical_revision", "latest"),
            ("cluster", "Kubernetes"),
        ] {
            all.insert(format!("{end}_{label}"), value.to_owned());
        }
    }
    all
}

fn of_answer(protocol: &str, grpc_status: &str) -> Labels {
    labels(&[
        ("request_protocol", protocol),
        ("response_code", "200"),
        ("grpc_response_status", grpc_status),
        ("response_flags", "-"),
    ])
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The first, as the second changes it.
fn with(one: &Labels, changes: &Labels) -> Labels {
    one.iter().chain(changes).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The value of the series that has these labels and no others, once there is one.
fn counted(mesh: &Mesh, from: &str, metric: &str, wanted: &Labels) -> f64 {
    let mut last = Vec::new();
    let what = format!("{from} has {metric} with {wanted:#?}");
    eventually_blocking(&what, || {
        last = scrape(mesh, from);
        last.retain(|sample| sample.name == metric);
        let found = last.iter().find(|sample| sample.labels == *wanted);
        if found.is_none() {
            eprintln!(
                "{metric} of {from}: {:#?}",
                last.iter().map(|it| difference(&it.labels, wanted)).collect::<Vec<_>>()
            );
        }
        found.map(|sample| sample.value)
    })
}

/// What all series of a metric amount to.
pub(crate) fn total(mesh: &Mesh, from: &str, metric: &str) -> f64 {
    scrape(mesh, from).iter().filter(|sample| sample.name == metric).map(|sample| sample.value).sum()
}

/// Labels of one that the other has otherwise, or not.
fn difference<'a>(one: &'a Labels, other: &Labels) -> Vec<(&'a String, &'a String)> {
    one.iter().filter(|(name, value)| other.get(*name) != Some(value)).collect()
}

fn scrape(mesh: &Mesh, from: &str) -> Vec<Sample> {
    let answer = mesh.ask(from, "127.0.0.1", 15090, "/stats/prometheus");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer of {from}: {answer}"));
    body.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// `name{label="value",…} 1`; labels of these tests hold no quotes.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, rest) = series.split_once('{')?;
    let pairs = rest.strip_suffix('}')?.split("\",").filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    Some(Sample { name: name.to_owned(), labels: pairs.map(pair).collect::<Option<_>>()?, value: value.parse().ok()? })
}

/// What requests of every kind leave behind in Istio's metrics, on both sides: series and counts, by proxy.
fn counted_of_everything(mesh: &Mesh) -> BTreeMap<String, f64> {
    for path in ["/get", "/status/418", "/status/503", "/nowhere"] {
        assert!(mesh.ask("deploy/client", "httpbin", 8000, path).starts_with("HTTP/1.1 "), "{path}");
    }
    assert!(mesh.ask("deploy/outsider", "httpbin", 8000, "/get").starts_with("HTTP/1.1 200"));
    mesh.probe("deploy/client", &["http2", "http://rpc:7000/shop.Cart/Add"]);
    assert_eq!(mesh.converse("deploy/client", "echo", 9000, "echo there >&3; timeout 10 head -1 <&3"), "heard there\n");
    let proxies = ["client", "httpbin", "rpc", "echo"];
    eventually_blocking("every proxy has counted its part", || {
        let all = proxies.map(|proxy| series(mesh, proxy));
        let count = |proxy: usize, metric: &str| -> f64 {
            let of_metric = all[proxy].iter().filter(|(series, _)| series.contains(metric));
            of_metric.map(|(_, value)| value).sum()
        };
        // An Envoy has histograms only some seconds later.
        let requests = [
            "istio_requests_total",
            "istio_request_bytes_count",
            "istio_response_bytes_count",
            "istio_request_duration_milliseconds_count",
        ];
        let of_requests = |proxy, wanted| requests.iter().all(|metric| count(proxy, metric) == wanted);
        let closed = |proxy| count(proxy, "istio_tcp_connections_closed_total") == 1.0;
        let are_told = of_requests(0, 5.0) && of_requests(1, 5.0) && of_requests(2, 1.0) && closed(0) && closed(3);
        are_told.then(|| all.into_iter().flatten().collect())
    })
}

/// Istio's series of a proxy, but for what Envoy's logger cannot count, and for buckets of times.
fn series(mesh: &Mesh, proxy: &str) -> BTreeMap<String, f64> {
    let answer = mesh.ask(&format!("deploy/{proxy}"), "127.0.0.1", 15000, "/stats/prometheus?filter=istio_");
    let lines = answer.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| {
        let line = line.strip_prefix("envoy_istiocustom_").unwrap_or(line);
        sample(line).filter(|sample| sample.name.starts_with("istio_"))
    });
    let wanted = samples.filter(|sample| sample.labels.contains_key("reporter")).filter(|sample| {
        let is_of_messages = sample.name.contains("_messages_");
        let is_exact = sample.name.ends_with("_total") || sample.name.ends_with("_count");
        // An Envoy goes on to the application before the client's handshake is over, and counts a connection that is opened
        // then: it does not know yet whose it is.
        let is_early = sample.labels["reporter"] == "destination" && sample.name.ends_with("connections_opened_total");
        is_exact && !is_of_messages && !is_early
    });
    wanted.map(|sample| (format!("{proxy}: {} {:?}", sample.name, sample.labels), sample.value)).collect()
}

/// A real Envoy under the same control plane, with the same pods and the same requests.
#[test]
fn a_real_envoy_counts_the_same_series() {
    let Some(envoy) = lateen_tests::envoy() else { return };
    let ours = counted_of_everything(&Mesh::of("services"));
    let theirs = counted_of_everything(&Mesh::of_by(Programs::with_envoy(&envoy, "DELTA_GRPC"), "services"));
    let differ = |one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>| -> Vec<String> {
        let differing = one.iter().filter(|(series, value)| other.get(*series) != Some(value));
        differing.map(|(series, value)| format!("{series} {value}")).collect()
    };
    let (own, envoys) = (differ(&ours, &theirs), differ(&theirs, &ours));
    assert!(
        own.is_empty() && envoys.is_empty(),
        "ours alone:\n{}\nEnvoy's alone:\n{}",
        own.join("\n"),
        envoys.join("\n")
    );
    assert!(ours.len() > 30, "{ours:#?}");
}

//! Outlier detection: who is ejected, why, until when, and how that is told.

use lateen_testing::upstream::Upstream;

use crate::proxy::{Proxy, Setup};

const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Sends a request that whichever host gets it answers so.
async fn ask(proxy: &Proxy, upstreams: &[Upstream], content_type: &str, answer: &str) {
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\ncontent-type: {content_type}\r\n\r\n")).await;
    let [first, second, third] = upstreams else { panic!("there are three") };
    let mut server = tokio::select! {
        server = first.accept() => server,
        server = second.accept() => server,
        server = third.accept() => server,
    };
    server.head().await;
    server.send(answer).await;
    client.response().await;
}

async fn three(cluster: &'static str) -> (Vec<Upstream>, Proxy) {
    let upstreams = vec![Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    // No connection is kept: each request shows at which host it arrives.
    let options = "common_http_protocol_options: {max_requests_per_connection: 1}";
    let proxy = Setup { cluster, options, ..Setup::default() }.start(&addresses).await;
    (upstreams, proxy)
}

/// istio/istio#45128: ejected and ready hosts add up before, during and after.
#[tokio::test]
async fn ejected_and_healthy_hosts_add_up_and_each_ejection_is_told() {
    let (upstreams, proxy) = three(
        "lb_policy: ROUND_ROBIN, common_lb_config: {healthy_panic_threshold: {value: 0}}, \
         outlier_detection: {consecutive_5xx: 5, enforcing_success_rate: 0, interval: 0.05s, base_ejection_time: 2s, \
         max_ejection_percent: 60}",
    )
    .await;
    let numbers = async || {
        let stat = async |name: &str| proxy.stat(&format!("cluster.up.{name}")).await;
        let (ejected, healthy) = (stat("outlier_detection.ejections_active").await, stat("membership_healthy").await);
        (ejected, healthy, stat("membership_total").await)
    };
    // In turn: each host counts its own failures, the fifth of each is one too many.
    for _ in 0..12 {
        ask(&proxy, &upstreams, "text/plain", FAILED).await;
    }
    assert_eq!(numbers().await, (0, 3, 3));
    ask(&proxy, &upstreams, "text/plain", FAILED).await;
    assert_eq!(numbers().await, (1, 2, 3));
    let clusters = proxy.admin("/clusters").await.body;
    assert_eq!(clusters.matches("::health_flags::/failed_outlier_check\n").count(), 1, "{clusters}");
    assert_eq!(clusters.matches("::ejected::consecutive_5xx until 20").count(), 1, "{clusters}");
    let json = proxy.admin("/clusters?format=json").await.body;
    assert!(json.contains("failed_outlier_check") && json.contains("consecutive_5xx"), "{json}");
    assert_eq!(proxy.stat("cluster.up.outlier_detection.ejections_enforced_consecutive_5xx").await, 1);
    let told = proxy.admin("/stats?filter=ejections_total").await.body;
    assert!(told.contains("cause.consecutive_5xx: 1"), "{told}");
    // It comes back by itself.
    proxy.until_stat("cluster.up.outlier_detection.ejections_active", 0).await;
    assert_eq!(numbers().await, (0, 3, 3));
    assert!(!proxy.admin("/clusters").await.body.contains("failed_outlier_check"));
}

/// With it no more than the share may be out: a tenth of three hosts is none.
#[tokio::test]
async fn no_more_are_ejected_than_may_be() {
    for (limit, ejected) in [
        ("max_ejection_percent: 10", 0),
        ("max_ejection_percent: 66", 1),
        ("max_ejection_percent: 10, always_eject_one_host: true", 1),
    ] {
        let cluster = format!(
            "lb_policy: ROUND_ROBIN, outlier_detection: {{consecutive_5xx: 1, enforcing_success_rate: 0, interval: 100s, \
             base_ejection_time: 100s, {limit}}}"
        );
        let (upstreams, proxy) = three(cluster.leak()).await;
        for _ in 0..3 {
            ask(&proxy, &upstreams, "text/plain", FAILED).await;
        }
        let stat = async |name: &str| proxy.stat(&format!("cluster.up.outlier_detection.{name}")).await;
        assert_eq!(stat("ejections_active").await, ejected, "{limit}");
        assert_eq!(stat("ejections_overflow").await, 3 - ejected, "{limit}");
        assert_eq!(stat("ejections_detected_consecutive_5xx").await, 3, "{limit}");
    }
}

/// Five hosts in turn: one fails three times in four, and is below what the others' success rates deviate by.
#[tokio::test]
async fn a_host_that_succeeds_less_than_the_others_is_ejected() {
    let upstreams = [(); 5].map(|()| Upstream::start());
    let [first, second, third, fourth, fifth] = upstreams;
    let upstreams = [first.await, second.await, third.await, fourth.await, fifth.await];
    let options = "common_http_protocol_options: {max_requests_per_connection: 1}";
    for (rule, cause) in [
        ("success_rate_minimum_hosts: 5, success_rate_request_volume: 4", "success_rate"),
        (
            "enforcing_success_rate: 0, enforcing_failure_percentage: 100, failure_percentage_threshold: 60, \
             failure_percentage_request_volume: 4",
            "failure_percentage",
        ),
    ] {
        let cluster = format!(
            "lb_policy: ROUND_ROBIN, outlier_detection: {{enforcing_consecutive_5xx: 0, interval: 1s, base_ejection_time: 100s, \
             max_ejection_percent: 20, {rule}}}"
        );
        let setup = Setup { cluster: cluster.leak(), options, ..Setup::default() };
        let proxy = setup.start(&upstreams.each_ref().map(|upstream| upstream.address)).await;
        let is_ejected = async || proxy.stat("cluster.up.outlier_detection.ejections_active").await == 1;
        // Until an interval has seen enough of each: a slow machine may need another.
        for asked in 0..4000 {
            let round = asked % 4;
            if asked > 0 && round == 0 && is_ejected().await {
                break;
            }
            for _ in &upstreams {
                let mut client = proxy.connect().await;
                client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
                // In turn, from any of them on.
                let (at, mut server) = tokio::select! {
                    server = upstreams[0].accept() => (0, server),
                    server = upstreams[1].accept() => (1, server),
                    server = upstreams[2].accept() => (2, server),
                    server = upstreams[3].accept() => (3, server),
                    server = upstreams[4].accept() => (4, server),
                };
                server.head().await;
                let failed = at == 2 && round > 0;
                server.send(if failed { FAILED } else { OK }).await;
                client.response().await;
            }
        }
        assert!(is_ejected().await, "{cause}");
        let enforced = format!("cluster.up.outlier_detection.ejections_enforced_{cause}");
        assert_eq!(proxy.stat(&enforced).await, 1, "{cause}");
        let clusters = proxy.admin("/clusters").await.body;
        let out = format!("{}::health_flags::/failed_outlier_check\n", upstreams[2].address);
        assert!(clusters.contains(&out), "{clusters}");
    }
}

/// A time-out of the whole answer is the host's failure too (a 504, for Envoy).
#[tokio::test]
async fn a_host_that_does_not_answer_in_time_is_ejected() {
    let upstream = Upstream::start().await;
    let cluster = "outlier_detection: {consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 100s, \
                   enforcing_success_rate: 0, base_ejection_time: 100s, max_ejection_percent: 100}";
    let proxy = Setup { cluster, route: "timeout: 0.05s", ..Setup::default() }.start(&[upstream.address]).await;
    for expected in [0, 1] {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let _silent = upstream.accept().await;
        assert_eq!(client.response().await.status, 504);
        assert_eq!(proxy.stat("cluster.up.outlier_detection.ejections_active").await, expected);
    }
}

/// Envoy: the status in the head of an answer to a gRPC request counts in place of the 200 that it comes with.
#[tokio::test]
async fn a_grpc_status_counts_as_the_http_status_that_it_means() {
    let (upstreams, proxy) = three(
        "lb_policy: ROUND_ROBIN, outlier_detection: {consecutive_5xx: 1, enforcing_success_rate: 0, interval: 100s, \
         base_ejection_time: 100s, max_ejection_percent: 100}",
    )
    .await;
    let answer = |status: u32| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let ejected = async || proxy.stat("cluster.up.outlier_detection.ejections_active").await;
    // Not found is no failure of the server, and a header of that name means nothing to other requests.
    ask(&proxy, &upstreams, "application/grpc", &answer(5)).await;
    ask(&proxy, &upstreams, "text/plain", &answer(14)).await;
    assert_eq!(ejected().await, 0);
    ask(&proxy, &upstreams, "application/grpc", &answer(14)).await;
    assert_eq!(ejected().await, 1);
}

/// Peak EWMA: two hosts, one of which takes its time once; the next requests go to the other.
#[tokio::test]
async fn the_host_that_was_slow_once_is_spared() {
    let upstreams = [Upstream::start().await, Upstream::start().await];
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let options = "common_http_protocol_options: {max_requests_per_connection: 1}";
    let cluster = "lb_policy: LEAST_REQUEST, metadata: {filter_metadata: {lateen: {balancer: peak-ewma}}}";
    let proxy = Setup { cluster, options, ..Setup::default() }.start(&addresses).await;
    let mut slow = None;
    for _ in 0..20 {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let (host, mut server) = tokio::select! {
            server = upstreams[0].accept() => (0, server),
            server = upstreams[1].accept() => (1, server),
        };
        server.head().await;
        match slow {
            // It is the time that the answer takes which is tested.
            None => tokio::time::sleep(std::time::Duration::from_millis(400)).await,
            Some(slow) => assert_ne!(host, slow, "it was slow a moment ago"),
        }
        slow.get_or_insert(host);
        server.send(OK).await;
        client.response().await;
    }
}

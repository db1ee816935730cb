//! The gRPC statistics filter: what it counts, when, and under which names; as seen on Envoy 1.40 but where a test says
//! otherwise.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use lateen_testing::eventually::{eventually, within};
use lateen_testing::http2::{self, Upstream};

use crate::proxy::{Proxy, Setup};

macro_rules! grpc_stats {
    ($fields:literal) => {
        concat!(
            r#"{name: grpc_stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, "#,
            $fields,
            "}},"
        )
    };
}

/// As the mesh has it.
const TOGETHER: &str = grpc_stats!("emit_filter_state: true, stats_for_all_methods: false");
const ALL: &str = grpc_stats!("stats_for_all_methods: true");

fn setup(filters: &'static str) -> Setup {
    Setup { filters, http2: true, ..Setup::default() }
}

/// Waits until these are the gRPC statistics of the cluster, and no others: `success: 1`.
async fn counted(proxy: &Proxy, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    eventually(&format!("{expected:?}"), async || {
        let body = proxy.admin("/stats").await.body;
        let mut found: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("cluster.up.grpc.")).collect();
        found.sort_unstable();
        (found == expected).then_some(())
    })
    .await;
}

async fn open(sender: &mut SendRequest<Bytes>, path: &str, kind: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let head = Request::builder().method(Method::POST).uri(format!("http://h{path}")).header("content-type", kind);
    within("a stream may be opened", std::future::poll_fn(|cx| sender.poll_ready(cx))).await.expect("it is open");
    sender.send_request(head.body(()).expect("the head is right"), false).expect("the connection is open")
}

async fn call(sender: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    open(sender, path, "application/grpc").await
}

fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).expect("it is short").to_be_bytes();
    [&[0][..], &length, text.as_bytes()].concat().into()
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc+proto").body(()).expect("the head is right")
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))])
}

/// One message up, one down, and the status.
async fn unary(proxy: &Proxy, upstream: &mut Upstream, path: &str, status: &'static str) {
    let mut sender = http2::connect(proxy.address).await;
    let (response, mut up) = call(&mut sender, path).await;
    http2::send(&mut up, message("ask"), true).await;
    let mut stream = upstream.accept().await;
    http2::whole(stream.request.body_mut()).await.expect("it is whole");
    let mut down = stream.respond.send_response(head(), false).expect("it is open");
    http2::send(&mut down, message("answer"), false).await;
    down.send_trailers(trailers(status)).expect("it is open");
    let mut response = within("the answer", response).await.expect("there is one");
    assert_eq!(http2::whole(response.body_mut()).await.expect("it is whole").1, Some(trailers(status)));
}

#[tokio::test]
async fn calls_count_by_their_status() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(TOGETHER).start(&[upstream.address]).await;
    counted(&proxy, &[]).await;
    unary(&proxy, &mut upstream, "/a.S/M", "0").await;
    counted(&proxy, &["0: 1", "request_message_count: 1", "response_message_count: 1", "success: 1", "total: 1"]).await;
    unary(&proxy, &mut upstream, "/a.S/N", "13").await;
    // No status of gRPC's own: Envoy takes it as it comes.
    unary(&proxy, &mut upstream, "/b.T/M?q", "99").await;
    let expected = [
        "0: 1",
        "13: 1",
        "99: 1",
        "failure: 2",
        "request_message_count: 3",
        "response_message_count: 3",
        "success: 1",
        "total: 3",
    ];
    counted(&proxy, &expected).await;
}

#[tokio::test]
async fn a_head_with_the_status_is_a_whole_answer() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(TOGETHER).start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (response, mut up) = call(&mut sender, "/a.S/M").await;
    http2::send(&mut up, message("ask"), true).await;
    let mut stream = upstream.accept().await;
    http2::whole(stream.request.body_mut()).await.expect("it is whole");
    let mut only = head();
    only.headers_mut().extend(trailers("5"));
    stream.respond.send_response(only, true).expect("it is open");
    within("the answer", response).await.expect("there is one");
    counted(&proxy, &["5: 1", "failure: 1", "request_message_count: 1", "total: 1"]).await;
}

/// Both ways and while the call lasts, wherever DATA frames end. A call that is broken off has no status.
#[tokio::test]
async fn messages_count_as_they_pass() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(TOGETHER).start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    let (response, mut up) = call(&mut sender, "/a.S/Chat").await;
    let mut stream = upstream.accept().await;
    let mut down = stream.respond.send_response(head(), false).expect("it is open");
    let mut response = within("the head", response).await.expect("there is one");
    let bytes = [message("one"), message(""), message("three")].concat();
    for (index, byte) in bytes.iter().enumerate() {
        http2::send(&mut up, Bytes::copy_from_slice(&[*byte]), false).await;
        let got = http2::data(stream.request.body_mut()).await.expect("data").expect("data");
        assert_eq!(got.as_ref(), [*byte], "byte {index}");
    }
    counted(&proxy, &["request_message_count: 3"]).await;
    http2::send(&mut down, [message("one"), message("two").slice(..3)].concat().into(), false).await;
    http2::data(response.body_mut()).await.expect("data").expect("data");
    counted(&proxy, &["request_message_count: 3", "response_message_count: 2"]).await;
    up.send_reset(Reason::CANCEL);
    within("the upstream is told", std::future::poll_fn(|cx| down.poll_reset(cx))).await.expect("it is a reset");
    proxy.logged("/a.S/Chat").await;
    counted(&proxy, &["request_message_count: 3", "response_message_count: 2"]).await;
}

#[tokio::test]
async fn resets_count_when_the_client_gets_a_status_for_them() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(TOGETHER).start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    for (path, answered) in [("/a.S/Amid", true), ("/a.S/Before", false)] {
        let (response, mut up) = call(&mut sender, path).await;
        http2::send(&mut up, message("ask"), true).await;
        let mut stream = upstream.accept().await;
        http2::whole(stream.request.body_mut()).await.expect("it is whole");
        if answered {
            let mut down = stream.respond.send_response(head(), false).expect("it is open");
            let mut response = within("the head", response).await.expect("there is one");
            down.send_reset(Reason::INTERNAL_ERROR);
            http2::whole(response.body_mut()).await.expect_err("it is broken off");
            proxy.logged(path).await;
            counted(&proxy, &["request_message_count: 1"]).await;
        } else {
            stream.respond.send_reset(Reason::INTERNAL_ERROR);
            let response = within("the answer", response).await.expect("there is one");
            assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from_static("14")));
            counted(&proxy, &["14: 1", "failure: 1", "request_message_count: 2", "total: 1"]).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_call_is_not_counted() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(ALL).start(&[upstream.address]).await;
    let mut sender = http2::connect(proxy.address).await;
    for (path, kind) in
        [("/a.S/M", "application/grpc-web"), ("/a.S", "application/grpc"), ("/a/S/M", "application/grpc")]
    {
        let (response, mut up) = open(&mut sender, path, kind).await;
        http2::send(&mut up, message("ask"), true).await;
        let mut stream = upstream.accept().await;
        http2::whole(stream.request.body_mut()).await.expect("it is whole");
        let mut down = stream.respond.send_response(head(), false).expect("it is open");
        http2::send(&mut down, message("answer"), false).await;
        down.send_trailers(trailers("0")).expect("it is open");
        let mut response = within("the answer", response).await.expect("there is one");
        assert_eq!(response.status(), StatusCode::OK);
        http2::whole(response.body_mut()).await.expect("it is whole");
        proxy.logged(path).await;
    }
    counted(&proxy, &[]).await;
    // An answer that is not gRPC's has no messages, but its status counts.
    let (response, mut up) = call(&mut sender, "//a.S//M/?q").await;
    http2::send(&mut up, Bytes::new(), true).await;
    let mut stream = upstream.accept().await;
    let mut down = stream.respond.send_response(Response::new(()), false).expect("it is open");
    http2::send(&mut down, message("answer"), false).await;
    down.send_trailers(trailers("0")).expect("it is open");
    let mut response = within("the answer", response).await.expect("there is one");
    http2::whole(response.body_mut()).await.expect("it is whole");
    counted(&proxy, &["a.S.M.0: 1", "a.S.M.success: 1", "a.S.M.total: 1"]).await;
}

#[tokio::test]
async fn methods_may_have_numbers_of_their_own() {
    let whole = |method: &str| -> Vec<String> {
        ["0: 1", "request_message_count: 1", "response_message_count: 1", "success: 1", "total: 1"]
            .map(|line| format!("{method}{line}"))
            .into()
    };
    let cases = [
        (ALL, ["a.S.Get.", "a.S.Put."]),
        (grpc_stats!("stats_for_all_methods: true, replace_dots_in_grpc_service_name: true"), ["a_S.Get.", "a_S.Put."]),
        (
            grpc_stats!("individual_method_stats_allowlist: {services: [{name: a.S, method_names: [Put, List]}]}"),
            ["", "a.S.Put."],
        ),
    ];
    for (filter, names) in cases {
        let mut upstream = Upstream::start().await;
        let proxy = setup(filter).start(&[upstream.address]).await;
        unary(&proxy, &mut upstream, "/a.S/Get", "0").await;
        unary(&proxy, &mut upstream, "/a.S/Put", "0").await;
        let expected: Vec<String> = names.iter().flat_map(|name| whole(name)).collect();
        counted(&proxy, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

/// A name does not say where the service ends. Envoy shows only one of the two metrics that it has of one name.
#[tokio::test]
async fn names_that_are_the_same_are_one() {
    let mut upstream = Upstream::start().await;
    let proxy = setup(ALL).start(&[upstream.address]).await;
    unary(&proxy, &mut upstream, "/a.S/Get", "0").await;
    unary(&proxy, &mut upstream, "/a/S.Get", "0").await;
    let expected = ["0: 2", "request_message_count: 2", "response_message_count: 2", "success: 2", "total: 2"]
        .map(|line| format!("a.S.Get.{line}"));
    counted(&proxy, &expected.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn prometheus_gets_services_and_methods_as_tags() {
    let cases = [
        (TOGETHER, "/S/M", r#"envoy_cluster_grpc_total{envoy_cluster_name="up"} 1"#),
        (
            ALL,
            "/S/M",
            r#"envoy_cluster_grpc_total{envoy_grpc_bridge_method="M",envoy_grpc_bridge_service="S",envoy_cluster_name="up"} 1"#,
        ),
        // Envoy takes words between dots.
        (
            ALL,
            "/a.b.S/M",
            r#"envoy_cluster_grpc_S_M_total{envoy_grpc_bridge_method="b",envoy_grpc_bridge_service="a",envoy_cluster_name="up"} 1"#,
        ),
    ];
    for (filter, path, line) in cases {
        let mut upstream = Upstream::start().await;
        let proxy = setup(filter).start(&[upstream.address]).await;
        unary(&proxy, &mut upstream, path, "0").await;
        eventually(line, async || {
            let body = proxy.admin("/stats/prometheus").await.body;
            body.lines().any(|known| known == line).then_some(())
        })
        .await;
    }
}

/// The filter counts what passes it: not what one before it answers, but what one behind it does.
#[tokio::test]
async fn its_place_decides_what_it_sees() {
    const FAULT: &str = r#"{name: fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {percentage: {numerator: 100}, http_status: 403}}},"#;
    for before in [true, false] {
        let filters = if before { format!("{FAULT}{ALL}") } else { format!("{ALL}{FAULT}") };
        let proxy = setup(filters.leak()).start(&[]).await;
        let mut sender = http2::connect(proxy.address).await;
        let (response, mut up) = call(&mut sender, "/a.S/M").await;
        http2::send(&mut up, Bytes::new(), true).await;
        let response = within("the answer", response).await.expect("there is one");
        assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from_static("7")));
        proxy.logged("/a.S/M").await;
        let expected: &[&str] = if before { &[] } else { &["a.S.M.7: 1", "a.S.M.failure: 1", "a.S.M.total: 1"] };
        counted(&proxy, expected).await;
    }
}

#[tokio::test]
async fn a_route_may_do_without() {
    let mut upstream = Upstream::start().await;
    let disabled = r#"timeout: 0s}, typed_per_filter_config: {grpc_stats: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}"#;
    let proxy = Setup { route: disabled, ..setup(TOGETHER) }.start(&[upstream.address]).await;
    unary(&proxy, &mut upstream, "/a.S/M", "0").await;
    proxy.logged("/a.S/M").await;
    counted(&proxy, &[]).await;
}

/// Not in Envoy.
#[tokio::test]
async fn methods_that_clients_make_up_are_bounded() {
    let proxy = setup(ALL).start(&[]).await;
    let mut client = proxy.connect().await;
    let long = "m".repeat(256);
    for batch in 0..26 {
        let request = |method: &str| {
            format!(
                "POST /S/{method} HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"
            )
        };
        let mut requests: String = (0..40).map(|number| request(&(batch * 40 + number).to_string())).collect();
        requests.push_str(&request(&long));
        client.send(requests).await;
        for _ in 0..41 {
            assert_eq!(client.response().await.header("grpc-status"), Some("14"));
        }
    }
    // A thousand have numbers of their own; the others, and the long ones, are counted with no method's name.
    proxy.until_stat("cluster.up.grpc.S.999.14", 1).await;
    proxy.until_stat("cluster.up.grpc.total", 40 + 26).await;
    let body = proxy.admin("/stats?filter=grpc.*total").await.body;
    assert_eq!(body.lines().count(), 1001, "{body}");
}

/// Not in Envoy.
#[tokio::test]
async fn statuses_that_servers_make_up_are_bounded() {
    let upstream = lateen_testing::upstream::Upstream::start().await;
    let proxy = Setup { filters: TOGETHER, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = proxy.connect().await;
    let mut server = None;
    for number in 0..40 {
        client
            .send("POST /S/M HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
            .await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        server.head().await;
        let status = if number == 0 { "9".repeat(17) } else { (100 + number).to_string() };
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\ngrpc-status: {status}\r\n\r\n")).await;
        client.response().await;
    }
    proxy.until_stat("cluster.up.grpc.failure", 40).await;
    let body = proxy.admin("/stats?filter=cluster.up.grpc").await.body;
    assert_eq!(body.lines().count(), 16 + 2, "{body}");
}

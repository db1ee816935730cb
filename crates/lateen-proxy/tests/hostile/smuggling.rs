//! Bytes that one side takes for a body, or for another protocol, and the other for a request.

use lateen_testing::upstream::Upstream;

use crate::frames::{self, Client, END_HEADERS, END_STREAM, Fate, HEADERS, PROTOCOL_ERROR, field, frame};
use crate::proxy::Setup;
use crate::site::Site;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Refuses `/denied`, and answers `/direct` here.
const REFUSING: &str = r#"{name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
  rules: {action: DENY, policies: {p: {principals: [{any: true}], permissions: [{url_path: {path: {prefix: /denied}}}]}}}}},"#;

/// A reply of the proxy's own does not make a request of the body that nobody read (CL.0).
#[tokio::test]
async fn a_body_behind_a_refusal_is_no_request() {
    let site = Site::start(Setup { filters: REFUSING, ..Setup::default() }).await;
    let length = SMUGGLED.len();
    for framed in [
        format!("Content-Length: {length}\r\n\r\n{SMUGGLED}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
    ] {
        let mut client = site.proxy.connect().await;
        client.send(format!("POST /denied HTTP/1.1\r\nHost: h\r\n{framed}{SMUGGLED}")).await;
        assert_eq!(client.response().await.status, 403, "{framed:?}");
        assert_eq!(client.gone().await, "", "{framed:?}: one answer, and the end");
    }
    // A refusal that left nothing unread keeps the connection.
    let mut client = site.proxy.connect().await;
    client.send("GET /denied HTTP/1.1\r\nHost: h\r\n\r\nGET /seen HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((client.response().await.status, client.response().await.status), (403, 200));
    assert!(site.reached_once().starts_with("GET /seen "));
    site.unharmed().await;
}

/// `Connection` names fields that are not to be passed on. The body's length is none of them: without it the upstream would
/// take the body for a request.
#[tokio::test]
async fn connection_options_do_not_take_the_length_away() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    for options in ["content-length", "close, Content-Length", "keep-alive, CONTENT-LENGTH , host"] {
        let mut client = proxy.connect().await;
        let length = SMUGGLED.len();
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: {options}\r\nContent-Length: {length}\r\n\r\n");
        client.send(head + SMUGGLED).await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.contains(&format!("\r\ncontent-length: {length}")) && head.contains("\r\nhost: h"), "{head:?}");
        assert_eq!(server.take(length).await, SMUGGLED);
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.body, "ok");
    }
    // The same on the way back.
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok").await;
    let response = client.response().await;
    assert_eq!((response.header("content-length"), response.body.as_str()), (Some("2"), "ok"));
}

/// Nor does it take away what the mesh adds.
#[tokio::test]
async fn connection_options_do_not_take_away_what_the_proxy_adds() {
    let site = Site::start(Setup { manager: "use_remote_address: true", ..Setup::default() }).await;
    let lines = "Connection: close, X-Forwarded-For, x-request-id, X-FORWARDED-PROTO, te, x-secret, upgrade\r\n\
                 X-Forwarded-For: 6.6.6.6\r\nX-Request-Id: mine\r\nX-Secret: a\r\nTE: trailers\r\nUpgrade: other\r\n";
    // An upgrade is not asked for by its name alone; here it is, and refused.
    assert_eq!(site.get("/", lines).await.0, 403);
    assert_eq!(site.get("/", &lines.replace(", upgrade", "")).await.0, 200);
    let head = site.reached_once();
    for there in ["\r\nx-forwarded-for: 127.0.0.1\r\n", "\r\nx-forwarded-proto: http\r\n", "\r\nx-request-id: "] {
        assert!(head.contains(there), "{there:?} in {head:?}");
    }
    for gone in ["6.6.6.6", "mine", "x-secret", "upgrade", "connection"] {
        assert!(!head.contains(gone), "{gone} in {head:?}");
    }
    site.unharmed().await;
}

const WEBSOCKET: Setup = Setup {
    manager: "upgrade_configs: [{upgrade_type: websocket}]",
    route: "",
    cluster: "",
    http2: false,
    options: "",
    clusters: "",
    loggers: "",
    filters: "",
    listener: "",
    bootstrap: "",
    descriptors: None,
};

/// What a client sends before the upstream has agreed to another protocol waits, and is thrown away if it does not agree.
#[tokio::test]
async fn bytes_ahead_of_a_101_wait_for_it() {
    let upstream = Upstream::start().await;
    let proxy = WEBSOCKET.start(&[upstream.address]).await;
    let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for agrees in [true, false] {
        let mut client = proxy.connect().await;
        client.send([head, SMUGGLED].concat()).await;
        let mut server = upstream.accept().await;
        server.head().await;
        if agrees {
            server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
            assert_eq!(server.take(SMUGGLED.len()).await, SMUGGLED);
            assert_eq!(client.response().await.status, 101);
        } else {
            server.send(OK).await;
            assert_eq!(client.response().await.status, 200);
            assert_eq!(client.gone().await, "", "one answer, and the end");
            // Nothing of it went on: what comes next on the upstream's connection is the next client's.
            let mut other = proxy.connect().await;
            other.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert!(server.head().await.starts_with("GET /next "));
            server.send(OK).await;
            assert_eq!(other.response().await.status, 200);
        }
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_or_to_something_else_is_no_tunnel() {
    let upstream = Upstream::start().await;
    let proxy = WEBSOCKET.start(&[upstream.address]).await;
    let asking = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let plain = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n";
    for (head, upgrade) in [(plain, "websocket"), (asking, "h2c"), (asking, "websocket, h2c")] {
        let mut client = proxy.connect().await;
        client.send(head).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(format!("{switched}Upgrade: {upgrade}\r\n\r\n{OK}")).await;
        let response = client.response().await;
        assert!(matches!(response.status, 502 | 503), "{response:?}");
        server.gone().await;
    }
}

/// HTTP/2 by way of an upgrade is not spoken, so no request hides in its frames.
#[tokio::test]
async fn h2c_is_not_upgraded_to() {
    let site = Site::start(Setup::default()).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    // Neither field goes on, whether it is asked for as it should be or not.
    for lines in [lines.to_owned(), lines.replace("Upgrade, ", "")] {
        let mut client = site.proxy.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n{preface}")).await;
        assert_eq!(client.response().await.status, 200);
        let head = site.reached_once();
        assert!(!head.contains("http2-settings") && !head.contains("upgrade"), "{head:?}");
        assert_eq!(client.response().await.status, 400, "the preface is no request");
    }
    site.unharmed().await;
}

#[tokio::test]
async fn connect_opens_no_tunnel() {
    let site = Site::start(Setup { filters: REFUSING, ..Setup::default() }).await;
    for target in ["h:443", "169.254.169.254:80", "h", "/denied", ""] {
        let mut client = site.proxy.connect().await;
        client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{SMUGGLED}")).await;
        let status = client.response().await.status;
        assert!(matches!(status, 400 | 403 | 404 | 405), "{target:?}: {status}");
        assert_eq!(client.gone().await, "", "{target:?}");
    }
    let connect = [field(":method", "CONNECT"), field(":authority", "h:443")].concat();
    let with_path = [connect.clone(), field(":path", "/"), field(":scheme", "http")].concat();
    let extended = [with_path.clone(), field(":protocol", "websocket")].concat();
    for (block, fates) in [
        (connect, &[Fate::Status(404)][..]),
        (with_path, &[Fate::Reset(PROTOCOL_ERROR)]),
        (extended, &[Fate::Reset(PROTOCOL_ERROR)]),
    ] {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS, 1, &block)).await;
        let fate = client.fate(1).await;
        assert!(fates.contains(&fate), "{fate:?}");
    }
    site.unharmed().await;
}

/// An answer that comes while the request still goes up: it goes down at once, and neither connection is used again.
#[tokio::test]
async fn an_early_answer_leaves_no_connection_to_others() {
    let upstream = Upstream::start().await;
    let proxy = Setup::default().start(&[upstream.address]).await;
    for status in ["413 Content Too Large", "200 OK"] {
        let mut client = proxy.connect().await;
        client.send("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\nfirst").await;
        let mut server = upstream.accept().await;
        server.until("first").await;
        server.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")).await;
        let response = client.response().await;
        assert_eq!((response.status.to_string().as_str(), response.body.as_str()), (&status[..3], "no"));
        assert_eq!(client.gone().await, "");
        server.gone().await;
        // The next client gets a connection of its own, and its own answer.
        let mut client = proxy.connect().await;
        client.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with("GET /next "));
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext").await;
        assert_eq!(client.response().await.body, "next");
    }
}

/// The first bad request ends the connection, however many wait behind it and whether or not the client reads.
#[tokio::test]
async fn pipelined_nonsense_is_answered_once() {
    let site = Site::start(Setup::default()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = site.proxy.connect().await;
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".repeat(1_000)).await;
        clients.push(client);
    }
    for client in &mut clients {
        let said = client.gone().await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said:?}");
    }
    site.unharmed().await;
}

/// Good requests of a client that reads no answers wait in the kernel, and not here.
#[tokio::test]
async fn answers_that_nobody_reads_are_not_piled_up() {
    let site = Site::start(Setup::default()).await;
    let before = site.proxy.anonymous_kib();
    let mut client = site.proxy.connect().await;
    let request = "GET /unread HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
    // Until nothing more is taken: the answers fill what the kernel keeps for them, and the requests what it keeps for us.
    let mut sent = 0;
    while tokio::time::timeout(std::time::Duration::from_millis(300), client.try_send(&request)).await.is_ok()
        && sent < 400
    {
        sent += 1;
    }
    assert!(sent < 400, "something must have stopped it");
    let after = site.proxy.anonymous_kib();
    assert!(after < before + (8 << 10), "{before} KiB became {after}");
    drop(client);
    site.proxy.until_stat("http.main.downstream_cx_active", 1).await;
    site.reached();
    site.unharmed().await;
}

/// Over HTTP/2 a message is refused that would read differently as HTTP/1.1.
#[tokio::test]
async fn nothing_of_http2_becomes_another_message_in_http11() {
    let site = Site::start(Setup::default()).await;
    let with = |name: &str, value: &str| frames::block("POST", "/", &[(name, value)]);
    let blocks = [
        with("x", "a\r\nx-smuggled: b"),
        with("x", "a\nb"),
        with("x", "a\rb"),
        with("x", "a\0b"),
        with("x\r\nx-smuggled", "b"),
        with("x y", "b"),
        with("x:y", "b"),
        with("", "b"),
        with("X-Upper", "b"),
        with("transfer-encoding", "chunked"),
        with("connection", "close"),
        with("keep-alive", "timeout=1"),
        with("proxy-connection", "close"),
        with("upgrade", "h2c"),
        with("te", "gzip"),
        with("content-length", "+0"),
        with("content-length", ""),
        with("content-length", "0, 0"),
        frames::block("POST", "/", &[("content-length", "0"), ("content-length", "0")]),
        frames::block("POST", "/a b", &[]),
        frames::block("POST", "/a\r\nx: y", &[]),
        frames::block("POST", "/a HTTP/1.1\r\nHost: h\r\n\r\nGET /smuggled", &[]),
        frames::block("PO ST", "/", &[]),
        frames::block("POST / HTTP/1.1\r\nx: y", "/", &[]),
        frames::block("", "/", &[]),
    ];
    for block in blocks {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{:?}", String::from_utf8_lossy(&block));
    }
    // A length that the data does not have.
    for (length, data) in [("3", &b"four"[..]), ("5", b"four"), ("0", b"four")] {
        let mut client = Client::connect(site.proxy.address).await;
        let block = frames::block("POST", "/", &[("content-length", length)]);
        // At once: the backend answers a head as soon as it has come.
        let data = frame(frames::DATA, END_STREAM, 1, data);
        client.send([frame(HEADERS, END_HEADERS, 1, &block), data].concat()).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{length}");
    }
    site.proxy.until_stat("http.main.downstream_rq_active", 0).await;
    // A head may have gone up before its data was known to be wrong: then its connection was closed, and nothing is behind it.
    assert!(site.reached().iter().all(|head| head.starts_with("POST / HTTP/1.1\r\n") && !head.contains("smuggled")));
    site.unharmed().await;
}

//! HTTP/2 used against itself: floods, header blocks without end or with more in them than was sent, windows that stay shut,
//! and upstreams that break the rules.

use std::net::SocketAddr;

use lateen_testing::eventually::within;
use lateen_testing::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{
    self, CALM, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Fate, GOAWAY, HEADERS, PING, PRIORITY,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame, get,
};
use crate::proxy::Setup;
use crate::site::Site;

/// Identifiers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| number * 2 + 1)
}

/// Sends it all on a connection of its own, which must be ended as a flood is.
async fn is_calmed(site: &Site, what: &str, bytes: &[u8]) {
    let fate = Client::connect(site.proxy.address).await.flood(bytes).await;
    assert_eq!(fate, Fate::GoAway(CALM), "{what}");
}

#[tokio::test]
async fn rapid_resets_are_cut_off() {
    let site = Site::start(Setup::default()).await;
    let cancelled: Vec<u8> =
        streams(20_000).flat_map(|id| [get(id, "/"), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()).collect();
    is_calmed(&site, "HEADERS and RST_STREAM", &cancelled).await;
    let reached = site.reached().len();
    assert!(reached < 2_000, "{reached} of 20000 got through");
    site.unharmed().await;
}

/// The peer makes us reset its streams (CVE-2025-8671).
#[tokio::test]
async fn resets_of_our_own_are_counted_as_well() {
    let site = Site::start(Setup::default()).await;
    fn open(id: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, id, &frames::block("POST", "/", &[("content-length", "1")]))
    }
    type Wrong = fn(u32) -> Vec<u8>;
    let wrongs: [(&str, Wrong); 5] = [
        ("a window opened by nothing", |id| [open(id), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()),
        ("a window opened too far", |id| [open(id), frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])].concat()),
        ("more data than was announced", |id| [open(id), frame(DATA, 0, id, b"two")].concat()),
        ("less data than was announced", |id| [open(id), frame(DATA, END_STREAM, id, b"")].concat()),
        ("a stream that depends on itself", |id| {
            let itself = [&id.to_be_bytes()[..], &[0]].concat();
            [open(id), frame(PRIORITY, 0, id, &itself)].concat()
        }),
    ];
    for (what, wrong) in wrongs {
        let bytes: Vec<u8> = streams(5_000).flat_map(wrong).collect();
        is_calmed(&site, what, &bytes).await;
    }
    site.reached();
    site.unharmed().await;
}

#[tokio::test]
async fn a_block_without_end_is_cut_off() {
    let site = Site::start(Setup::default()).await;
    let begin = frame(HEADERS, END_STREAM, 1, &frames::block("GET", "/", &[]));
    let crumb = field("x", "y".repeat(16_000));
    for (what, more) in [("empty", &b""[..]), ("small", &[0, 1, b'a', 1, b'b']), ("growing", &crumb)] {
        let bytes = [begin.clone(), frame(CONTINUATION, 0, 1, more).repeat(2_000)].concat();
        is_calmed(&site, what, &bytes).await;
    }
    // Nothing comes between the frames of a block.
    for (what, other) in
        [("a ping", frame(PING, 0, 0, &[0; 8])), ("another stream's", frame(CONTINUATION, END_HEADERS, 3, b""))]
    {
        let fate = Client::connect(site.proxy.address).await.flood(&[begin.clone(), other].concat()).await;
        assert_eq!(fate, Fate::GoAway(PROTOCOL_ERROR), "{what}");
    }
    site.unharmed().await;
}

#[tokio::test]
async fn frames_that_lead_to_nothing_are_bounded() {
    let site = Site::start(Setup::default()).await;
    let open = frame(HEADERS, END_HEADERS, 1, &frames::block("POST", "/", &[]));
    for (what, flood) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("answers to pings", frame(PING, 1, 0, &[0; 8])),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff].repeat(100))),
        ("acknowledgements", frame(SETTINGS, 1, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 1])),
        ("empty data", frame(DATA, 0, 1, &[])),
        ("padding", frame(DATA, 0x8, 1, &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("unknown frames", frame(0xbe, 0, 0, b"what")),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("goodbyes", frame(GOAWAY, 0, 0, &[0; 8])),
    ] {
        is_calmed(&site, what, &[open.clone(), flood.repeat(10_000)].concat()).await;
    }
    site.reached();
    site.unharmed().await;
}

/// Answers that nobody takes: each stream holds little, and the upstream is not read on.
#[tokio::test]
async fn shut_windows_hold_the_upstream_back() {
    const STREAMS: u32 = 100;
    let upstream = endless_answers().await;
    let setup = Setup { manager: "stream_idle_timeout: 2s", options: "", ..Setup::default() };
    let proxy = setup.start(&[upstream]).await;
    let before = proxy.anonymous_kib();
    let mut client = Client::connect(proxy.address).await;
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    for id in streams(STREAMS) {
        client.send(get(id, "/")).await;
    }
    let (mut heads, mut resets, mut most) = (0, 0, 0);
    while resets < STREAMS {
        let frame = client.next().await.expect("the connection holds");
        match frame.kind {
            HEADERS => heads += 1,
            DATA => assert!(frame.payload.is_empty(), "no window is open"),
            RST_STREAM => resets += 1,
            _ => {}
        }
        most = most.max(proxy.anonymous_kib());
    }
    assert_eq!(heads, STREAMS, "every stream was answered before its time was over");
    assert!(most < before + (48 << 10), "{before} KiB became {most}: more than a few hundred KiB for each stream");
    proxy.until_stat("cluster.up.upstream_rq_active", 0).await;
}

/// A backend that sends 10 MiB to everybody.
async fn endless_answers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut head).await?;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n").await?;
                stream.write_all(&[b'x'; 10 << 20]).await
            });
        }
    });
    address
}

/// A byte that stands for four thousand: what a block unfolds to is counted, and nothing of it kept.
#[tokio::test]
async fn small_blocks_do_not_unfold_without_bounds() {
    let site = Site::start(Setup::default()).await;
    let value = "v".repeat(4_000);
    let mut kept = field("x", &value);
    // RFC 7541 section 6.2.1: kept in the table, as its entry 62.
    kept[0] = 0x40;
    let begin = frames::block("GET", "/", &[]);
    let mut crumb = field("cookie", "");
    crumb[0] = 0x40;
    for (what, first, references) in
        [("a large field", kept, 15_000), ("an empty crumb", crumb, 15_000), ("a static field", Vec::new(), 16_000)]
    {
        let reference = if first.is_empty() { 0x90 } else { 0xbe };
        let block = [begin.clone(), first, vec![reference; references]].concat();
        let rest = &block[16_000.min(block.len())..];
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_STREAM, 1, &block[..block.len() - rest.len()])).await;
        client.send(frame(CONTINUATION, END_HEADERS, 1, rest)).await;
        let fate = client.fate(1).await;
        assert!(matches!(fate, Fate::Status(431) | Fate::Reset(_) | Fate::GoAway(_)), "{what}: {fate:?}");
        assert!(site.proxy.anonymous_kib() < 64 << 10, "{what}");
    }
    // References to what is not there, and tables larger than was agreed.
    for (what, block) in [
        ("an empty place", [frames::block("GET", "/", &[]), vec![0xbe]].concat()),
        ("place zero", [frames::block("GET", "/", &[]), vec![0x80]].concat()),
        ("a number without end", [frames::block("GET", "/", &[]), vec![0xff; 64]].concat()),
        ("a large table", [vec![0x3f, 0xe1, 0xff, 0xff, 0x7f], frames::block("GET", "/", &[])].concat()),
        (
            "a string longer than the block",
            [frames::block("GET", "/", &[]), vec![0, 1, b'x', 0x7f, 0xff, 0x7f]].concat(),
        ),
        (
            "bits that are no Huffman code",
            [frames::block("GET", "/", &[]), vec![0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]].concat(),
        ),
    ] {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        let fate = client.fate(1).await;
        assert!(matches!(fate, Fate::GoAway(9)), "{what}: {fate:?}");
    }
    site.unharmed().await;
}

#[tokio::test]
async fn pseudo_headers_are_first_once_and_known() {
    let site = Site::start(Setup::default()).await;
    let plain = frames::block("GET", "/", &[]);
    let method = field(":method", "GET");
    for (what, block) in [
        ("a second method", [plain.clone(), method.clone()].concat()),
        ("a second path", [field(":path", "/other"), plain.clone()].concat()),
        ("a late one", [field("x", "y"), plain.clone()].concat()),
        ("an unknown one", [field(":what", "x"), plain.clone()].concat()),
        ("a response's", [field(":status", "200"), plain.clone()].concat()),
        ("no method", plain[method.len()..].to_vec()),
        ("nothing but a method", method.clone()),
        ("upper case", [field(":Method", "GET"), plain[method.len()..].to_vec()].concat()),
        ("no name", [field("", ""), plain.clone()].concat()),
    ] {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR), "{what}");
    }
    // A host may be long, longer than any name for TLS.
    let host = "h".repeat(300);
    let block = [method, field(":scheme", "http"), field(":path", "/"), field(":authority", &host)].concat();
    let mut client = Client::connect(site.proxy.address).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    assert_eq!(client.fate(1).await, Fate::Status(200));
    assert!(site.reached_once().contains(&format!("\r\nhost: {host}\r\n")));
    // Trailers have none at all, and end their stream.
    for (flags, trailers) in [(END_STREAM, field(":path", "/admin")), (0, field("x-late", "1"))] {
        let mut client = Client::connect(site.proxy.address).await;
        client.send(frame(HEADERS, END_HEADERS, 1, &frames::block("POST", "/", &[]))).await;
        client.send(frame(HEADERS, END_HEADERS | flags, 1, &trailers)).await;
        assert_eq!(client.fate(1).await, Fate::Reset(PROTOCOL_ERROR));
    }
    site.proxy.until_stat("http.main.downstream_rq_active", 0).await;
    site.reached();
    site.unharmed().await;
}

#[tokio::test]
async fn more_streams_than_agreed_are_refused() {
    let upstream = Upstream::start().await;
    let manager = "http2_protocol_options: {max_concurrent_streams: 100}";
    let proxy = Setup { manager, ..Setup::default() }.start(&[upstream.address]).await;
    let mut client = Client::connect(proxy.address).await;
    client.send(streams(1_000).flat_map(|id| get(id, "/")).collect::<Vec<u8>>()).await;
    let mut refused = 0;
    while refused < 900 {
        let frame = client.next().await.expect("the connection holds");
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == RST_STREAM {
            assert_eq!(frame.word(0), REFUSED_STREAM);
            refused += 1;
        }
    }
    proxy.until_stat("http.main.downstream_rq_active", 100).await;
}

/// An upstream by hand: what it says once its first request has come.
async fn rude_upstream(says: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        // Once; afterwards they are polite.
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(answer(stream, says.get(number).cloned()));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, mut rude: Option<Vec<u8>>) -> std::io::Result<()> {
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut received = vec![0; 24];
    stream.read_exact(&mut received).await?;
    received.clear();
    loop {
        while received.len() >= 9 {
            let end = 9 + usize::from(received[1]) * 256 + usize::from(received[2]);
            if received.len() < end {
                break;
            }
            let head: Vec<u8> = received.drain(..end).collect();
            let id = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
            match head[3] {
                HEADERS if rude.is_some() => stream.write_all(&rude.take().unwrap_or_default()).await?,
                HEADERS => stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88])).await?,
                SETTINGS if head[4] == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
                _ => {}
            }
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn rude_upstreams_fail_their_own_requests_only() {
    let goodbye = frame(GOAWAY, 0, 0, &[0; 8]);
    let no_streams = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("GOAWAY, then no streams at all", [goodbye.clone(), no_streams.clone()].concat()),
        ("no streams at all, then GOAWAY", [no_streams, goodbye].concat()),
        ("a push", frame(0x5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("data before any head", frame(DATA, END_STREAM, 1, b"evil")),
        ("a head without a status", frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x", "y"))),
        ("a status that is none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":status", "2x"))),
        ("a 101", frame(HEADERS, END_HEADERS, 1, &field(":status", "101"))),
        ("an answer to nobody", frame(HEADERS, END_HEADERS | END_STREAM, 99, &[0x88])),
        (
            "a header with a line break",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[vec![0x88], field("x", "a\r\nb: c")].concat()),
        ),
        ("a block that cannot be read", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 16])),
        ("a frame that is too long", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("pings without end", frame(PING, 0, 0, &[0; 8]).repeat(10_000)),
        ("a window too far", frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
    ];
    for (what, rude) in cases {
        let upstream = rude_upstream(vec![rude]).await;
        let proxy = Setup { http2: true, ..Setup::default() }.start(&[upstream]).await;
        let mut client = proxy.connect().await;
        client.send("POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
        let first = within(what, client.response()).await;
        assert!(matches!(first.status, 200 | 502 | 503) && !first.body.contains("evil"), "{what}: {first:?}");
        let mut client = proxy.connect().await;
        client.send("GET /second HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(within(what, client.response()).await.status, 200, "{what}: the next connection serves");
        assert!(proxy.anonymous_kib() < 64 << 10, "{what}");
    }
}

/// A gRPC message's length is what its sender says; nothing is set aside for it.
#[tokio::test]
async fn lengths_of_grpc_messages_are_only_counted() {
    let filters = r#"{name: envoy.filters.http.grpc_stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, stats_for_all_methods: true, emit_filter_state: true}},"#;
    let upstream = Upstream::start().await;
    let proxy = Setup { filters, ..Setup::default() }.start(&[upstream.address]).await;
    let before = proxy.anonymous_kib();
    let mut clients = Vec::new();
    for flag in [0u8, 1, 255] {
        let mut client = Client::connect(proxy.address).await;
        let block = frames::block("POST", "/pkg.Svc/M", &[("content-type", "application/grpc"), ("te", "trailers")]);
        client.send(frame(HEADERS, END_HEADERS, 1, &block)).await;
        client.send(frame(DATA, 0, 1, &[flag, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])).await;
        let mut server = upstream.accept().await;
        server.until("\r\n\r\n").await;
        clients.push((client, server));
    }
    assert!(proxy.anonymous_kib() < before + (8 << 10));
}

//! Peers with a good certificate that do with a tunnel what they please: they are cut off, and nobody else notices.

use lateen_testing::eventually::within;
use lateen_testing::upstream::Upstream;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tunnel_pair::{Pair, Pairing};

const TUNNEL: &[u8] = b"lateen-mux/1";
const OPEN: u8 = 1;
const DATA: u8 = 0;
const STOP: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A tunnel of the test's own.
async fn tunnel(pair: &Pair) -> TlsStream<TcpStream> {
    let client = pair.authority.workload("hostile.test").client(&pair.authority, &[TUNNEL, b"http/1.1"]);
    let tcp = TcpStream::connect(pair.back.address).await.expect("it listens");
    let name = ServerName::try_from("back.test").expect("it is a name");
    let stream = client.connect(name, tcp).await.expect("its certificate is good");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(TUNNEL));
    stream
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is small").to_be_bytes();
    [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

/// Says all of it, and reads until the tunnel is over; the error that it was closed with.
async fn closed_with(pair: &Pair, bytes: &[u8]) -> u32 {
    let mut tunnel = tunnel(pair).await;
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    within("the tunnel is closed", async {
        let mut rest = bytes;
        loop {
            let (mut reader, mut writer) = tokio::io::split(&mut tunnel);
            tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(read @ 1..) => received.extend_from_slice(&chunk[..read]),
                    _ => return,
                },
                Ok(written) = writer.write(rest), if !rest.is_empty() => rest = &rest[written..],
            }
        }
    })
    .await;
    let (mut rest, mut error) = (&received[..], None);
    while rest.len() >= 9 {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        if rest[3] == GOAWAY {
            error = Some(u32::from_be_bytes(rest[13..17].try_into().expect("four bytes")));
        }
        rest = &rest[9 + length..];
    }
    error.expect("it was told why")
}

#[tokio::test]
async fn who_breaks_the_rules_is_cut_off_with_the_reason() {
    let upstream = Upstream::start().await;
    let pair = Pairing::TCP.start(upstream.address).await;
    let (mut client, mut server) = pair.connect(&upstream).await;
    client.send("a").await;
    server.until("a").await;
    let aborts =
        (1..4_000).flat_map(|id| [frame(OPEN, id, &[]), frame(STOP, id, &[1, 0, 0, 0, 0, 0, 0, 0, 0])].concat());
    for (bytes, error) in [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 6),
        (frame(DATA, 7, b"never opened"), 1),
        (frame(OPEN, 2, &[]), 1),
        ([frame(OPEN, 1, &[]), frame(DATA, 1, &[0; 16_384]).repeat(100)].concat(), 3),
        (frame(PING, 0, &[0; 8]).repeat(5_000), 11),
        (aborts.collect(), 11),
        ((1..5_000).flat_map(|id| frame(OPEN, id, &[])).collect(), 11),
    ] {
        assert_eq!(closed_with(&pair, &bytes).await, error, "{:?}", &bytes[..20]);
    }
    server.send("b").await;
    client.until("b").await;
    pair.back.until_stat("server.tunnel.downstream_active", 1).await;
    pair.back.until_stat("tcp.main.downstream_cx_total", pair.back.stat("tcp.main.downstream_cx_total").await).await;
    assert!(pair.back.resident_kib() < 80 << 10, "{} KiB", pair.back.resident_kib());
}

/// An upstream that reads nothing: what lies in the proxy for it is bounded, whatever is sent.
#[tokio::test]
async fn nobody_can_make_the_proxy_hold_more_than_the_windows() {
    let upstream = Upstream::start().await;
    let pair = Pairing::TCP.start(upstream.address).await;
    let mut tunnel = tunnel(&pair).await;
    let mut held = Vec::new();
    for id in 1..=100 {
        tunnel.write_all(&frame(OPEN, id, &[])).await.expect("it is open");
        for _ in 0..4 {
            tunnel.write_all(&frame(DATA, id, &[0; 16_000])).await.expect("it is open");
        }
        tunnel.flush().await.expect("it is open");
        held.push(upstream.accept().await);
    }
    assert!(pair.back.resident_kib() < 80 << 10, "{} KiB", pair.back.resident_kib());
    drop(tunnel);
    pair.back.until_stat("server.tunnel.downstream_active", 0).await;
}

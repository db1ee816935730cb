//! HTTP/2 as others know it: h2spec's whole suite, gRPC's own client and server, and a real Envoy on either side.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lateen_testing::eventually::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::{Proxy, Setup};

/// A program that `cargo xtask test` installs. Without it what needs it says so and is left out, except under CI.
pub(crate) fn tool(variable: &str, what: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    if given.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set: `cargo xtask test` sets it");
        eprintln!("LEFT OUT: {what}; `cargo xtask test` installs what it needs, or set {variable}");
    }
    given
}

/// What it says, and whether it is content.
fn run(command: &mut Command) -> (String, bool) {
    let output = command.stdin(Stdio::null()).output().expect("the program can be run");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (text, output.status.success())
}

async fn in_background(mut command: Command) -> (String, bool) {
    tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it does not panic")
}

#[tokio::test]
async fn h2spec() {
    let Some(h2spec) = tool("H2SPEC_BIN", "h2spec does not check HTTP/2") else { return };
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = upstream.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = upstream.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let proxy = Setup { manager: "codec_type: HTTP2", ..Setup::default() }.start(&[address]).await;
    let mut command = Command::new(h2spec);
    command.args(["--timeout", "2", "-h", "127.0.0.1", "-p", &proxy.address.port().to_string()]);
    let (said, _) = in_background(command).await;
    // Those that failed are told again at the end.
    let verdict = said.rsplit("Failures:").next().unwrap_or_default();
    assert!(verdict.contains("145 tests, 145 passed, 0 skipped, 0 failed"), "{verdict}");
}

/// Answers HTTP/1.1 requests, one after the other.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await? > 0 {
        let has = |text: &[u8]| read.windows(text.len()).any(|window| window == text);
        let whole = read.ends_with(b"\r\n\r\n") && (!has(b"transfer-encoding") || has(b"\n0\r\n"));
        if whole {
            read.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await?;
        }
    }
    Ok(())
}

/// A program that is killed when the test ends.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn grpc_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc_peer.py")
}

/// Starts gRPC's own server.
pub(crate) async fn grpc_server(python: &Path, folder: &Path) -> (Running, SocketAddr) {
    let port = folder.join("port");
    let mut command = Command::new(python);
    command.arg(grpc_script()).arg("serve").arg(&port).stdin(Stdio::null());
    let server = Running(command.spawn().expect("Python can be run"));
    let port = eventually("the server listens", async || std::fs::read_to_string(&port).ok()?.parse().ok()).await;
    (server, SocketAddr::from(([127, 0, 0, 1], port)))
}

const GRPC: Setup = Setup {
    manager: "",
    route: "timeout: 0s",
    cluster: "",
    http2: true,
    options: "",
    clusters: "",
    loggers: "",
    filters: "",
    listener: "",
    bootstrap: "",
    descriptors: None,
};

async fn grpc_calls(python: &Path, to: SocketAddr) {
    let mut command = Command::new(python);
    command.arg(grpc_script()).arg("call").arg(to.to_string());
    let (said, content) = in_background(command).await;
    assert!(content && said.contains("all calls are as they should be"), "{said}");
}

/// Every kind of call, messages larger than windows, errors with and without a message before them, deadlines, cancellation.
#[tokio::test]
async fn grpc_of_another_make_on_both_sides() {
    let Some(python) = tool("GRPC_PYTHON", "gRPC's own client and server do not try the proxy") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_server, server) = grpc_server(&python, folder.path()).await;
    let proxy = GRPC.start(&[server]).await;
    grpc_calls(&python, proxy.address).await;
    proxy.until_stat("http.main.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.up.upstream_rq_active", 0).await;
}

/// gRPC's client → one → the other → gRPC's server, with the proxy first and with Envoy first.
#[tokio::test]
async fn a_real_envoy_on_either_side() {
    let tools = [
        ("GRPC_PYTHON", "gRPC's own client and server do not try the proxy beside Envoy"),
        ("ENVOY_BIN", "no Envoy speaks HTTP/2 with the proxy"),
    ];
    let [Some(python), Some(envoy)] = tools.map(|(variable, what)| tool(variable, what)) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_server, server) = grpc_server(&python, folder.path()).await;
    for envoy_first in [false, true] {
        let (second, first): (Proxy, Proxy);
        if envoy_first {
            second = GRPC.start(&[server]).await;
            first = GRPC.start_as(&envoy, &[second.address]).await;
        } else {
            second = GRPC.start_as(&envoy, &[server]).await;
            first = GRPC.start(&[second.address]).await;
        }
        grpc_calls(&python, first.address).await;
        for proxy in [&first, &second] {
            proxy.until_stat("http.main.downstream_rq_active", 0).await;
        }
    }
}

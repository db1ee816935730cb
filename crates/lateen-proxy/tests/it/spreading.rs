//! Clients that keep connections for long, before a service that grows: all stay with the pod that was there first, until it
//! drains or their connections have grown old. Then they spread, and gRPC loses no call over it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lateen_testing::eventually::within;
use lateen_testing::peer::Peer;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{ChildStdout, Command};

use crate::http2_conformance::{grpc_script, grpc_server, tool};
use crate::proxy::{Proxy, Setup};

const CLIENTS: usize = 6;

/// Two proxies that tell which of them answers, and what stands before them for clients without a proxy of their own: it
/// chooses for each connection, the first pod until the service has grown, and then each in turn.
struct Service {
    address: SocketAddr,
    first: Proxy,
    _second: Proxy,
    grown: Arc<AtomicBool>,
}

impl Service {
    async fn start(managers: [&'static str; 2], http2: bool, upstream: SocketAddr) -> Self {
        let [first, second] =
            managers.map(|manager| Setup { manager, route: "timeout: 0s", http2, ..Setup::default() });
        let (first, _second) = (first.start(&[upstream]).await, second.start(&[upstream]).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let grown = Arc::new(AtomicBool::new(false));
        let (pods, seen, taken) = ([first.address, _second.address], Arc::clone(&grown), AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let turn = if seen.load(Ordering::SeqCst) { taken.fetch_add(1, Ordering::SeqCst) } else { 0 };
                let mut pod = TcpStream::connect(pods[turn % 2]).await.expect("the proxy listens");
                // How it ends is what clients are about.
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut pod).await });
            }
        });
        Self { address, first, _second, grown }
    }

    fn grow(&self) {
        self.grown.store(true, Ordering::SeqCst);
    }

    async fn drain_first(&self) {
        assert_eq!(self.first.post("/drain_connections?time_s=1").await.status, 200);
    }
}

/// Calls of gRPC's own client over connections of their own, round after round.
struct Calls {
    rounds: Lines<BufReader<ChildStdout>>,
    _client: tokio::process::Child,
}

impl Calls {
    fn start(python: &std::path::Path, to: SocketAddr) -> Self {
        let mut command = Command::new(python);
        command.arg(grpc_script()).args(["keep", &to.to_string(), &CLIENTS.to_string()]);
        let mut client =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("Python can be run");
        let output = client.stdout.take().expect("it is a pipe");
        Self { rounds: BufReader::new(output).lines(), _client: client }
    }

    /// Who answered the next calls, none of which may fail.
    async fn round(&mut self) -> Vec<String> {
        let line = within("calls are answered", self.rounds.next_line()).await.expect("it can be read");
        let line = line.expect("the client goes on");
        assert!(!line.contains("failed"), "{line}");
        line.split(' ').map(str::to_owned).collect()
    }

    /// Goes on until both proxies have a part of the calls.
    async fn until_spread(&mut self) {
        while !is_spread(&self.round().await) {}
    }
}

fn is_spread(answered: &[String]) -> bool {
    let second = answered.iter().filter(|name| *name == "second").count();
    (2..=CLIENTS - 2).contains(&second)
}

#[tokio::test]
async fn grpc_clients_spread_after_a_drain_without_a_failed_call() {
    let Some(python) = tool("GRPC_PYTHON", "gRPC's own client is not seen spreading") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_server, server) = grpc_server(&python, folder.path()).await;
    let service = Service::start(["server_name: first", "server_name: second"], true, server).await;
    let mut calls = Calls::start(&python, service.address);
    assert_eq!(calls.round().await, ["first"; CLIENTS]);
    service.grow();
    for _ in 0..5 {
        assert_eq!(calls.round().await, ["first"; CLIENTS], "they keep what they have");
    }
    service.drain_first().await;
    calls.until_spread().await;
    for _ in 0..5 {
        assert!(is_spread(&calls.round().await), "and stay");
    }
}

#[tokio::test]
async fn grpc_clients_spread_as_their_connections_grow_old() {
    let Some(python) = tool("GRPC_PYTHON", "gRPC's own client is not seen spreading") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_server, server) = grpc_server(&python, folder.path()).await;
    let old = "server_name: first, common_http_protocol_options: {max_connection_duration: 0.5s}, drain_timeout: 0.1s";
    let service = Service::start([old, "server_name: second"], true, server).await;
    let mut calls = Calls::start(&python, service.address);
    assert_eq!(calls.round().await, ["first"; CLIENTS]);
    service.grow();
    calls.until_spread().await;
}

/// Accepts upgrades, and says everything again.
async fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut peer = Peer::new(stream);
                if !peer.next_head().await {
                    return;
                }
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .await;
                let (mut from, mut to) = peer.into_stream().into_split();
                // Until the client has enough of it.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A WebSocket, and who answered for it.
async fn open(service: &Service) -> (Peer, String) {
    let mut socket = Peer::connect(service.address).await;
    socket.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let head = socket.final_head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let name = head.lines().find_map(|line| line.strip_prefix("server: ")).expect("the proxy tells its name");
    let name = name.to_owned();
    socket.send("ping").await;
    socket.until("ping").await;
    (socket, name)
}

/// Nobody can ask a WebSocket politely: it has its time, is cut, and its client comes back.
#[tokio::test]
async fn websockets_spread_after_a_drain() {
    let managers = [
        "server_name: first, upgrade_configs: [{upgrade_type: websocket}]",
        "server_name: second, upgrade_configs: [{upgrade_type: websocket}]",
    ];
    let service = Service::start(managers, false, echoing().await).await;
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        let (socket, name) = open(&service).await;
        assert_eq!(name, "first");
        sockets.push(socket);
    }
    service.grow();
    service.drain_first().await;
    let mut answered = Vec::new();
    let mut anew = Vec::new();
    for mut socket in sockets {
        socket.gone().await;
        let (socket, name) = open(&service).await;
        answered.push(name);
        anew.push(socket);
    }
    assert!(is_spread(&answered), "{answered:?}");
    for mut socket in anew {
        socket.send("still").await;
        socket.until("still").await;
    }
}

//! The contract of every attack: a backend that writes down whatever reaches it, good traffic beside the attack, and the
//! process as it was before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lateen_testing::eventually::eventually;
use lateen_testing::peer::{Peer, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::proxy::{Proxy, Setup};

/// The answer of a policy that denies.
pub(crate) const DENIED: (u16, &str) = (403, "RBAC: access denied");

/// So much more memory may be held after an attack than before it: allocators keep some of what they had.
const SPARE_KIB: u64 = 16 << 10;

/// A proxy under attack.
pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    recorder: Recorder,
    canary: Canary,
    descriptors: usize,
    anonymous_kib: u64,
}

impl Site {
    /// A proxy in front of a recorder, with good traffic on it from now on.
    pub(crate) async fn start(setup: Setup) -> Self {
        let recorder = Recorder::start().await;
        let proxy = setup.start(&[recorder.address]).await;
        Self::behind(proxy, recorder).await
    }

    /// The same with a proxy of the test's own.
    pub(crate) async fn behind(proxy: Proxy, recorder: Recorder) -> Self {
        let canary = Canary::start(proxy.address).await;
        let (descriptors, anonymous_kib) = (proxy.descriptors(), proxy.anonymous_kib());
        Self { proxy, recorder, canary, descriptors, anonymous_kib }
    }

    /// Sends bytes on a connection of their own; the answer to the first request in them.
    pub(crate) async fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.proxy.connect().await;
        client.send(bytes).await;
        client.response().await
    }

    /// The status and body of `GET target`, with header lines of one's own.
    pub(crate) async fn get(&self, target: &str, lines: &str) -> (u16, String) {
        let response = self.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).await;
        (response.status, response.body)
    }

    /// What framing makes doubtful is answered with one of these, and the connection ends.
    pub(crate) async fn is_refused(&self, statuses: &[u16], bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let mut client = self.proxy.connect().await;
        // It may be refused before all of it was sent.
        let _ = client.try_send(bytes).await;
        let response = client.response().await;
        assert!(statuses.contains(&response.status), "{shown:?} is answered by {response:?}");
        assert_eq!(response.header("connection"), Some("close"), "{shown:?}");
        assert_eq!(client.gone().await, "", "{shown:?}: one answer, and the end");
    }

    /// The requests that reached the backend since the last time this was asked.
    pub(crate) fn reached(&self) -> Vec<String> {
        self.recorder.take()
    }

    /// The only request that reached it: its head as it came.
    pub(crate) fn reached_once(&self) -> String {
        let mut all = self.reached();
        assert_eq!(all.len(), 1, "{all:?}");
        all.pop().expect("there is one")
    }

    /// The process is the one it was, holds no more than before, and has served good traffic all the time; nothing reached
    /// the backend but what the test has taken note of.
    pub(crate) async fn unharmed(self) {
        assert_eq!(self.reached(), Vec::<String>::new());
        self.canary.sang().await;
        // Connections to the backend, and those of this very question, may have come.
        let most = self.descriptors + 8;
        eventually("descriptors are given back", async || (self.proxy.descriptors() <= most).then_some(())).await;
        let most = self.anonymous_kib + SPARE_KIB;
        eventually("memory is given back", async || (self.proxy.anonymous_kib() <= most).then_some(())).await;
    }
}

/// Good traffic on a connection of its own.
struct Canary {
    stop: Arc<AtomicBool>,
    singing: JoinHandle<()>,
}

impl Canary {
    async fn start(proxy: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut peer = Peer::connect(proxy).await;
        sing(&mut peer).await;
        let stopping = Arc::clone(&stop);
        let singing = tokio::spawn(async move {
            while !stopping.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sing(&mut peer).await;
            }
        });
        Self { stop, singing }
    }

    /// Every request was answered as it should be, the last one after the attack.
    async fn sang(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.singing.await.expect("good requests are served during an attack");
    }
}

async fn sing(peer: &mut Peer) {
    peer.send("GET /canary HTTP/1.1\r\nHost: canary.test\r\n\r\n").await;
    let response = peer.response().await;
    assert_eq!((response.status, response.body.as_str()), (200, "recorded"), "{response:?}");
}

/// A backend without an HTTP library, which would hide what it is sent: it writes heads down byte by byte, and answers each.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let heads = Arc::default();
        let recorded = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, Arc::clone(&recorded)));
            }
        });
        Self { address, heads }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock().expect("nobody panics with it"))
    }
}

/// Takes whatever ends in an empty line for a head.
async fn record(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        while let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..at + 4).collect();
            // Bytes that are not UTF-8 are shown as the characters of the same number.
            let head: String = head.iter().map(|byte| char::from(*byte)).collect();
            if !head.starts_with("GET /canary ") {
                heads.lock().expect("nobody panics with it").push(head);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nrecorded").await?;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

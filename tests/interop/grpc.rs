//! gRPC's own client and server, through every chain: the calls of `grpc_peer.py`, which the proxy's tests make without TLS.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use lateen_testing::eventually::eventually_blocking;

use crate::bed::{self, Origin, Running};
use crate::tools;

/// Unary and streams of every kind, deadlines, cancellation, large messages, metadata, errors and their details.
#[test]
fn grpc_on_both_sides() {
    let Some(python) = tools::tool("GRPC_PYTHON") else { return };
    let script = lateen_tests::root().join("crates/lateen-proxy/tests/it/grpc_peer.py");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("port");
    let mut command = Command::new(&python);
    command.arg(&script).arg("serve").arg(&file).stdin(Stdio::null());
    let _server = Running(command.spawn().expect("Python can be run"));
    let port: u16 = eventually_blocking("gRPC's server listens", || std::fs::read_to_string(&file).ok()?.parse().ok());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // gRPC's paths begin with the name of the service.
    bed::through_every_chain(&[Origin { name: "peer.Peer", http2: true, address }], |bed| {
        let arguments = [script.display().to_string(), "call".to_owned(), bed.plain.to_string()];
        let (said, _) = tools::run(&python, &arguments);
        assert!(said.contains("all calls are as they should be"), "{}: {said}", bed.name);
    });
}

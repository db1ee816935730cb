//! Who is who: mutual TLS from sidecar to sidecar, whatever the protocol, and nothing in the clear on the wire.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::running::{Mesh, PROBE};

/// The client as its certificate calls it.
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

pub(crate) fn an_http_server_is_told_who_asks(mesh: &Mesh) {
    let request = |last: &str| format!("GET /headers HTTP/1.1\\r\\nhost: httpbin:8000\\r\\n{last}\\r\\n");
    // Two on one connection.
    let script = format!("printf '{}{}' >&3 && timeout 10 cat <&3", request(""), request("connection: close\\r\\n"));
    let answers = mesh.converse("deploy/client", "httpbin", 8000, &script);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches(&forwarded_certificate()).count(), 2, "{answers}");
    // Nobody can say so who has not got the certificate.
    let claim = format!("x-forwarded-client-cert: URI={CLIENT}\\r\\nconnection: close\\r\\n");
    let script = format!("printf '{}' >&3 && timeout 10 cat <&3", request(&claim));
    let answer = mesh.converse("deploy/outsider", "httpbin", 8000, &script);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.contains(CLIENT), "{answer}");
}

/// As Istio's sidecars write it: the server's own name, the certificate's hash, the client's subject (what its traffic is counted
/// under, which is nobody's in Istio) and name.
fn forwarded_certificate() -> String {
    let subject = "CN=/w:client/c:client/r:latest/k:Kubernetes/a:client";
    format!("Subject=\\\"{subject}\\\";URI={CLIENT}")
}

pub(crate) fn http2_and_grpc_pass_with_their_trailers(mesh: &Mesh) {
    let answer = mesh.probe("deploy/client", &["http2", "http://rpc:7000/shop.Cart/Add"]);
    let certificate = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/default/sa/default;Hash=";
    for part in ["200\nHTTP/2.0\n", certificate, &format!("URI={CLIENT}\n"), "te: trailers\n", "\"grpc-status\": \"0\""]
    {
        assert!(answer.contains(part), "{part:?} in {answer}");
    }
}

/// A container that has the folder of the socket is told who the workload is.
pub(crate) fn the_application_gets_the_workloads_identity(mesh: &Mesh) {
    let said = mesh.probe("deploy/client", &["secrets", "/var/run/secrets/workload-spiffe-uds/socket"]);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["ROOTCA roots", &format!("default {CLIENT}")]);
}

/// TCP carries no header to tell the server; a policy knows the peer all the same.
pub(crate) fn tcp_is_for_whom_the_policy_names(mesh: &Mesh) {
    let ask = |from: &str| mesh.converse(from, "echo", 9000, "echo there >&3; timeout 10 head -1 <&3");
    let policy = |principal: &str| {
        mesh.apply_text(&format!(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: echo}}
spec:
  selector: {{matchLabels: {{app: echo}}}}
  rules:
  - from: [{{source: {{principals: [{principal}]}}}}]
"
        ));
    };
    assert_eq!(
        (ask("deploy/client"), ask("deploy/outsider")),
        ("heard there\n".to_owned(), "heard there\n".to_owned())
    );
    policy("cluster.local/ns/default/sa/client");
    assert_eq!((ask("deploy/client"), ask("deploy/outsider")), ("heard there\n".to_owned(), String::new()));
    policy("cluster.local/ns/default/sa/other");
    assert_eq!(ask("deploy/client"), "");
    mesh.delete("authorizationpolicy", "echo");
}

/// Everything that passes between the pods is looked at while the client says a word to the server: with mutual TLS the word
/// is not in it; without, it is, which shows that one would see it.
pub(crate) fn the_wire_carries_no_plaintext(mesh: &Mesh) {
    const WORD: &str = "plaintext-seen-on-the-wire";
    let wire = || {
        let capture = Capture::start(mesh);
        for protocol in ["tcp", "http"] {
            let answer = match protocol {
                "tcp" => {
                    mesh.converse("deploy/client", "echo", 9000, &format!("echo {WORD} >&3; timeout 10 head -1 <&3"))
                }
                _ => mesh.ask("deploy/client", "httpbin", 8000, &format!("/anything/{WORD}")),
            };
            assert!(answer.contains(WORD), "{answer}");
        }
        capture.stop()
    };
    let seen = |frames: &[u8], what: &[u8]| frames.windows(what.len()).filter(|window| *window == what).count();
    // Type and version of TLS records with data (RFC 8446 section 5.1).
    let tls_data = b"\x17\x03\x03";

    mesh.apply_text(&peer_authentication("default", "", "STRICT"));
    let frames = wire();
    assert_eq!(seen(&frames, WORD.as_bytes()), 0, "the word is in {} bytes of frames", frames.len());
    assert!(seen(&frames, tls_data) >= 4, "the capture saw both conversations, in TLS");
    assert_eq!(mesh.ask("deploy/outsider", "httpbin", 8000, "/get"), "", "plaintext from outside is refused");

    mesh.apply_text(&peer_authentication("default", "", "DISABLE"));
    let frames = wire();
    assert!(seen(&frames, WORD.as_bytes()) >= 4, "the word is there and back, twice, in {} bytes", frames.len());
    assert!(mesh.ask("deploy/outsider", "httpbin", 8000, "/get").starts_with("HTTP/1.1 200"));
    mesh.delete("peerauthentication", "default");
}

pub(crate) fn peer_authentication(name: &str, selector: &str, mode: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}}}
spec:
  {selector}
  mtls: {{mode: {mode}}}
"
    )
}

/// The probe, listening in the node's network namespace, through which all pods' traffic is routed.
struct Capture(std::process::Child);

impl Capture {
    fn start(mesh: &Mesh) -> Self {
        let [_, node] = mesh.processes();
        let mut command = Command::new("nsenter");
        command.args(["--target", &node.to_string(), "--net"]);
        let user_namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).expect("the process runs");
        if user_namespace("self") != user_namespace(&node.to_string()) {
            command.args(["--user", "--preserve-credentials"]);
        }
        let child = command.args([PROBE, "capture"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("nsenter (util-linux) is installed");
        let mut greeting = [0; 6];
        child.stdout.as_mut().expect("it is piped").read_exact(&mut greeting).expect("it listens");
        assert_eq!(&greeting, b"ready\n");
        Self(child)
    }

    /// All frames that came by.
    fn stop(mut self) -> Vec<u8> {
        let mut input = self.0.stdin.take().expect("it is piped");
        input.write_all(b"end\n").expect("it listens");
        drop(input);
        let mut frames = Vec::new();
        self.0.stdout.take().expect("it is piped").read_to_end(&mut frames).expect("it can be read");
        assert!(self.0.wait().expect("it was started here").success());
        frames
    }
}

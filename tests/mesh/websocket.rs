//! A conversation over WebSocket, through the gateway and a sidecar, that outlives the rules it began under.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::identity::peer_authentication;
use crate::running::Mesh;

/// Changes that are made while the conversation goes on.
const CHANGES: usize = 60;

pub(crate) fn a_conversation_outlives_changes_of_rules_and_listeners(mesh: &Mesh) {
    let mut socket = WebSocket::open(mesh.gateway(), "/ws");
    socket.converse("before any change");
    for change in 0..CHANGES {
        // Of each kind, what the change before has made goes when the next comes.
        let round = change / 5;
        match change % 5 {
            0 => mesh.apply_text(&chat_routes(round)),
            1 => mesh.apply_text(&another_service(round)),
            2 => mesh.apply_text(&another_gateway_port(round)),
            3 if round % 2 == 0 => {
                mesh.apply_text(&peer_authentication("httpbin", "selector: {matchLabels: {app: httpbin}}", "STRICT"));
            }
            3 => mesh.delete("peerauthentication", "httpbin"),
            _ if round % 2 == 0 => mesh.apply_text(OTHER_ROUTES),
            _ => mesh.delete("virtualservice", "httpbin"),
        }
        socket.converse(&format!("after change {change}"));
    }
    for (kind, name) in [("serviceentry", "coming"), ("gateway", "coming")] {
        mesh.run(&["delete", kind, name, "--wait"]);
        socket.converse(&format!("without {kind} {name}"));
    }
    mesh.apply_text(&chat_routes(0));
    socket.converse("after all");
}

/// The rules that the conversation itself came by.
fn chat_routes(round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: chat}}
spec:
  hosts: ['*']
  gateways: [front]
  http:
  - headers: {{response: {{set: {{round: '{round}'}}}}}}
    route: [{{destination: {{host: chat}}}}]
"
    )
}

/// A port of its own each time: a listener comes at every sidecar, and another goes.
fn another_service(round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: coming}}
spec:
  hosts: [coming.example]
  addresses: [240.0.0.44]
  ports: [{{number: {}, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 192.0.2.1}}]
",
        5400 + round
    )
}

/// And one at the gateway.
fn another_gateway_port(round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: coming}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {}, name: http, protocol: HTTP}}
    hosts: ['*']
",
        8100 + round
    )
}

const OTHER_ROUTES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: httpbin}
spec:
  hosts: [httpbin]
  http:
  - timeout: 3s
    route: [{destination: {host: httpbin}}]
";

/// First byte of a frame that is a whole text.
const TEXT: u8 = 0x81;

/// A client of RFC 6455, as far as short texts go.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(host: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(host).expect("the gateway is there");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time-out");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("the gateway reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the gateway answers");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        // The answer to that key (RFC 6455 section 1.3).
        let accepted = head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo=");
        assert!(accepted, "{head}");
        Self(stream)
    }

    /// Says something and hears it back, in frames of one text each (section 5.2); clients mask what they send, with zeros
    /// for all we care.
    fn converse(&mut self, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("it is short");
        let frame = [&[TEXT, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.write_all(&frame).unwrap_or_else(|error| panic!("the conversation has ended {text}: {error}"));
        let mut answer = vec![0; 2 + text.len()];
        self.0.read_exact(&mut answer).unwrap_or_else(|error| panic!("the conversation has ended {text}: {error}"));
        assert_eq!(answer, [&[TEXT, length], text.as_bytes()].concat());
    }
}

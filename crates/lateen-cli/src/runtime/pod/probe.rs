//! Asking a container how it is, as a kubelet does: from the node, whose address the redirect rules let through to the
//! app. So probes are run as the manifest has them and see the app and not its proxy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::container::ContainerPort;
use lateen_api::kubernetes::probe::{HttpGet, Probe};
use lateen_api::scalar::PortRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// At most so much of an answer is read to find its status.
const MAX_HEAD: usize = 16 << 10;

/// How to ask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Question {
    Http { port: u16, path: String, headers: Vec<(String, String)> },
    Tcp { ports: Vec<u16> },
    Exec(Vec<String>),
}

/// A question, and when and how often to ask it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub(crate) question: Question,
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
}

impl Check {
    /// A probe of a manifest, with Kubernetes' defaults.
    pub(crate) fn from_probe(probe: &Probe, ports: &[ContainerPort]) -> anyhow::Result<Self> {
        let question = match probe {
            Probe { http_get: Some(http), .. } => http_question(http, ports)?,
            Probe { tcp_socket: Some(tcp), .. } => {
                if !tcp.host.is_empty() {
                    bail!("tcpSocket.host is not supported: the pod itself is asked");
                }
                Question::Tcp { ports: vec![number(&tcp.port, ports)?] }
            }
            Probe { exec: Some(exec), .. } if !exec.command.is_empty() => Question::Exec(exec.command.clone()),
            Probe { grpc: Some(_), .. } => bail!("grpc probes are not supported on one machine; use tcpSocket"),
            _ => bail!("a probe needs httpGet, tcpSocket or exec"),
        };
        let seconds = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
        Ok(Self {
            question,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        })
    }

    /// Whether all these ports are listened on.
    pub(crate) fn listening(ports: Vec<u16>) -> Self {
        Self::plain(Question::Tcp { ports })
    }

    /// Whether `GET path` is answered with success.
    pub(crate) fn http(port: u16, path: &str) -> Self {
        Self::plain(Question::Http { port, path: path.to_owned(), headers: Vec::new() })
    }

    fn plain(question: Question) -> Self {
        let second = Duration::from_secs(1);
        let (initial_delay, period) = (Duration::ZERO, second);
        Self { question, initial_delay, period, timeout: second, success_threshold: 1, failure_threshold: 3 }
    }
}

fn http_question(http: &HttpGet, ports: &[ContainerPort]) -> anyhow::Result<Question> {
    if http.scheme.as_deref().is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http")) {
        bail!("httpGet with a scheme other than HTTP is not supported on one machine; use tcpSocket");
    }
    if !http.host.is_empty() && http.host != "localhost" {
        bail!("httpGet.host is not supported: the pod itself is asked");
    }
    let path = if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) };
    let headers = http.http_headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    Ok(Question::Http { port: number(&http.port, ports)?, path, headers })
}

fn number(port: &PortRef, ports: &[ContainerPort]) -> anyhow::Result<u16> {
    match port {
        PortRef::Number(number) => Ok(*number),
        PortRef::Name(name) => {
            let named = ports.iter().find(|port| port.name == *name);
            Ok(named.with_context(|| format!("the container has no port named {name}"))?.container_port)
        }
    }
}

/// The TCP ports that a container says it listens on.
pub(crate) fn declared(ports: &[ContainerPort]) -> Vec<u16> {
    let tcp = ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.map(|port| port.container_port).collect()
}

/// Names of ports, of all containers of a pod.
pub(crate) fn named<'a>(ports: impl Iterator<Item = &'a ContainerPort>) -> BTreeMap<String, u16> {
    ports.filter(|port| !port.name.is_empty()).map(|port| (port.name.clone(), port.container_port)).collect()
}

/// Asks over the network. The time limit is the caller's.
pub(crate) async fn ask_network(question: &Question, address: Ipv4Addr) -> anyhow::Result<()> {
    match question {
        Question::Tcp { ports } => {
            for port in ports {
                TcpStream::connect(SocketAddrV4::new(address, *port)).await.with_context(|| format!("port {port}"))?;
            }
            Ok(())
        }
        Question::Http { port, path, headers } => http(SocketAddrV4::new(address, *port), path, headers).await,
        Question::Exec(_) => bail!("a command is not asked over the network"),
    }
}

/// Success is any status from 200 to 399.
async fn http(address: SocketAddrV4, path: &str, headers: &[(String, String)]) -> anyhow::Result<()> {
    let mut request = format!("GET {path} HTTP/1.1\r\nUser-Agent: kube-probe/lateen\r\nAccept: */*\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut chunk = [0; 2048];
    while !head.contains(&b'\n') && head.len() < MAX_HEAD {
        match stream.read(&mut chunk).await? {
            0 => break,
            length => head.extend_from_slice(&chunk[..length]),
        }
    }
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(other) => bail!("HTTP status {other}"),
        None => bail!("not an HTTP answer"),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn probes_have_kubernetes_defaults_and_named_ports() {
        let probe: Probe = serde_json::from_value(json!({"httpGet": {"path": "healthz", "port": "http"}})).unwrap();
        let ports: Vec<ContainerPort> =
            serde_json::from_value(json!([{"name": "http", "containerPort": 8080}])).unwrap();
        let check = Check::from_probe(&probe, &ports).unwrap();
        let question = Question::Http { port: 8080, path: "/healthz".to_owned(), headers: Vec::new() };
        assert_eq!(check.question, question);
        let defaults =
            (check.period.as_secs(), check.timeout.as_secs(), check.failure_threshold, check.success_threshold);
        assert_eq!(defaults, (10, 1, 3, 1));
        assert!(Check::from_probe(&probe, &[]).unwrap_err().to_string().contains("no port named http"));
        let grpc: Probe = serde_json::from_value(json!({"grpc": {"port": 1}})).unwrap();
        assert!(Check::from_probe(&grpc, &[]).unwrap_err().to_string().contains("grpc"));
    }

    #[test]
    fn the_status_line_is_read() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status(b""), None);
    }
}

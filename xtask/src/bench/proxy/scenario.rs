//! What is measured: the traffic, and what the proxy is configured to do with it.

/// One kind of traffic through one kind of configuration.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// `--protocol` of the load program as the client.
    pub(crate) protocol: &'static str,
    pub(crate) connections: usize,
    /// Requests at once on each connection.
    pub(crate) streams: usize,
    /// Requests per second in the open loop; such that the slowest peer uses about a quarter of its core. Bulk has none.
    pub(crate) rate: Option<u32>,
    pub(crate) traffic: Traffic,
    /// With what a sidecar has besides routing: authorization, fault, CORS and gRPC filters, access log, Istio's metrics.
    pub(crate) mesh: bool,
    /// Two proxies, mutual TLS between them.
    pub(crate) pair: bool,
    /// The CPU per request that Lateen is to have at most, Envoy's being 1.
    pub(crate) target: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Tcp,
    /// The version of HTTP that the client speaks, and the one that the upstream does.
    Http {
        client: Version,
        upstream: Version,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

const ONE: Traffic = Traffic::Http { client: Version::One, upstream: Version::One };
const TWO_ONE: Traffic = Traffic::Http { client: Version::Two, upstream: Version::One };
const TWO: Traffic = Traffic::Http { client: Version::Two, upstream: Version::Two };

const H1: Scenario = Scenario {
    name: "h1",
    what: "HTTP/1.1, 64 connections, answers of 1 KiB",
    protocol: "h1",
    connections: 64,
    streams: 1,
    rate: Some(2000),
    traffic: ONE,
    mesh: false,
    pair: false,
    target: 0.34,
};

const H2: Scenario = Scenario {
    name: "h2",
    what: "HTTP/2 at both ends, 4 connections with 25 streams each",
    protocol: "h2",
    connections: 4,
    streams: 25,
    traffic: TWO,
    target: 0.45,
    ..H1
};

const GRPC: Scenario = Scenario {
    name: "grpc",
    what: "unary gRPC calls of 128 bytes, 4 connections with 25 calls each",
    protocol: "grpc",
    target: 0.46,
    ..H2
};

const TCP: Scenario = Scenario {
    name: "tcp",
    what: "TCP, 128 bytes to and fro on 64 connections",
    protocol: "echo",
    connections: 64,
    streams: 1,
    rate: Some(3000),
    traffic: Traffic::Tcp,
    mesh: false,
    pair: false,
    target: 0.62,
};

const BULK: Scenario = Scenario {
    name: "bulk",
    what: "TCP, 4 connections downloading without end",
    protocol: "bulk",
    connections: 4,
    rate: None,
    target: 0.42,
    ..TCP
};

const CRR: Scenario = Scenario {
    name: "crr",
    what: "TCP, a new connection for each 128 bytes to and fro",
    protocol: "connect",
    connections: 16,
    rate: Some(500),
    target: 0.60,
    ..TCP
};

/// In the order of the tables.
pub(crate) const SCENARIOS: &[Scenario] = &[
    H1,
    Scenario { name: "h1mesh", what: "h1, as in a sidecar", mesh: true, target: 0.28, ..H1 },
    Scenario {
        name: "h2h1",
        what: "HTTP/2 from the client, HTTP/1.1 to the upstream",
        traffic: TWO_ONE,
        target: 0.40,
        ..H2
    },
    H2,
    GRPC,
    Scenario { name: "grpcmesh", what: "grpc, as in a sidecar", mesh: true, target: 0.30, ..GRPC },
    Scenario {
        name: "pair",
        what: "h1 through two proxies, mutual TLS between them",
        pair: true,
        rate: Some(1000),
        target: 0.30,
        ..H1
    },
    Scenario {
        name: "pairmesh",
        what: "pair, as in two sidecars",
        pair: true,
        mesh: true,
        rate: Some(1000),
        target: 0.28,
        ..H1
    },
    Scenario {
        name: "pairgrpc",
        what: "grpc through two proxies, mutual TLS between them",
        pair: true,
        rate: Some(1000),
        target: 0.50,
        ..GRPC
    },
    TCP,
    BULK,
    CRR,
    Scenario {
        name: "tcppair",
        what: "tcp through two proxies, mutual TLS between them",
        pair: true,
        rate: Some(2000),
        target: 0.57,
        ..TCP
    },
    Scenario {
        name: "bulkpair",
        what: "bulk through two proxies, mutual TLS between them",
        pair: true,
        target: 0.80,
        ..BULK
    },
    Scenario {
        name: "crrpair",
        what: "crr through two proxies, mutual TLS between them",
        pair: true,
        rate: Some(200),
        target: 0.25,
        ..CRR
    },
];

pub(crate) fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// One proxy's place between client and upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) listen: u16,
    pub(crate) upstream: u16,
    pub(crate) traffic: Traffic,
    pub(crate) mesh: bool,
    /// With access log and metrics.
    pub(crate) tells: bool,
    /// Clients come with mutual TLS.
    pub(crate) tls_in: bool,
    /// The upstream is another proxy, reached by mutual TLS.
    pub(crate) tls_out: bool,
}

impl Scenario {
    /// `--protocol` of the load program as the upstream.
    pub(crate) fn upstream_protocol(&self) -> &'static str {
        if self.traffic == TWO_ONE { "h1" } else { self.protocol }
    }

    /// The proxies between client and upstream, the client's first. `ports` is asked for each one's port.
    pub(crate) fn hops(
        &self,
        upstream: u16,
        mut port: impl FnMut() -> anyhow::Result<u16>,
    ) -> anyhow::Result<Vec<Hop>> {
        let listen = port()?;
        let Self { traffic, mesh, .. } = *self;
        let only = Hop { listen, upstream, traffic, mesh, tells: mesh, tls_in: false, tls_out: false };
        if !self.pair {
            return Ok(vec![only]);
        }
        let between = port()?;
        Ok(vec![Hop { upstream: between, tls_out: true, ..only }, Hop { listen: between, tls_in: true, ..only }])
    }
}

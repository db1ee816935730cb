//! Which protocol a port speaks, by `appProtocol`, by the port's name, by its number, or unknown until bytes arrive.

/// The protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    /// TLS that the application terminates, carrying HTTP.
    Https,
    /// TLS that the application terminates.
    Tls,
    Tcp,
    Mongo,
    Redis,
    MySql,
    Udp,
    /// Not declared: the first bytes of each connection decide between HTTP/1.1, HTTP/2 and TCP.
    Sniffed,
}

impl std::fmt::Display for Protocol {
    /// As Istio spells it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::MySql => "MySQL",
            Self::Udp => "UDP",
            Self::Sniffed => "sniffed",
        })
    }
}

impl Protocol {
    /// Reads Istio's protocol names (`Gateway` and `ServiceEntry` ports, prefixes of port names); case does not matter.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// The protocol of a Kubernetes Service port.
    ///
    /// `appProtocol` beats the name, the name (`<protocol>` or `<protocol>-<rest>`) beats the number; what is left is
    /// sniffed. `transport` is Kubernetes' `protocol` field (`TCP` when absent).
    pub fn of_service_port(transport: Option<&str>, app_protocol: Option<&str>, name: Option<&str>, port: u16) -> Self {
        if transport.is_some_and(|transport| transport.eq_ignore_ascii_case("UDP")) {
            return Self::Udp;
        }
        if let Some(declared) = app_protocol.and_then(Self::from_app_protocol) {
            return declared;
        }
        if let Some(named) = name.and_then(Self::from_port_name) {
            return named;
        }
        match port {
            // Servers on these ports speak first, so there would be nothing to sniff: SMTP, DNS, MySQL, MongoDB.
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Sniffed,
        }
    }

    fn from_app_protocol(value: &str) -> Option<Self> {
        match value.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Some(Self::Http2),
            "kubernetes.io/ws" => Some(Self::Http),
            "kubernetes.io/wss" => Some(Self::Https),
            other => Self::parse(other),
        }
    }

    fn from_port_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        if lower == "grpc-web" || lower.starts_with("grpc-web-") {
            return Some(Self::GrpcWeb);
        }
        let prefix = lower.split_once('-').map_or(lower.as_str(), |(prefix, _)| prefix);
        Self::parse(prefix)
    }

    /// HTTP in the clear, so that routes apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// HTTP/2 towards the application.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// TLS of the application's own.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Decided by the first bytes.
    pub fn is_sniffed(self) -> bool {
        self == Self::Sniffed
    }

    /// Bytes that are passed on as they are (TLS of the application's own is).
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql)
    }

    /// HTTP routes apply, at least when the bytes turn out to be HTTP.
    pub fn may_be_http(self) -> bool {
        self.is_http() || self.is_sniffed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_beats_name_beats_number() {
        for (transport, app, name, port, want) in [
            (None, None, Some("http"), 80, Protocol::Http),
            (None, None, Some("HTTP2-web"), 80, Protocol::Http2),
            (None, None, Some("grpc-web-x"), 80, Protocol::GrpcWeb),
            (None, None, Some("grpc-webx"), 80, Protocol::Grpc),
            (None, None, Some("httpx"), 80, Protocol::Sniffed),
            (None, None, None, 80, Protocol::Sniffed),
            (None, Some("tcp"), Some("http"), 80, Protocol::Tcp),
            (None, Some("kubernetes.io/h2c"), Some("http"), 80, Protocol::Http2),
            (None, Some("kubernetes.io/wss"), None, 80, Protocol::Https),
            (None, Some("example.com/own"), Some("http"), 80, Protocol::Http),
            (None, None, Some("db"), 3306, Protocol::Tcp),
            (None, None, Some("http-db"), 3306, Protocol::Http),
            (Some("UDP"), None, Some("http"), 80, Protocol::Udp),
            (Some("TCP"), None, Some("mysql"), 80, Protocol::MySql),
        ] {
            assert_eq!(Protocol::of_service_port(transport, app, name, port), want, "{app:?} {name:?} {port}");
        }
    }
}

//! Envoy's attributes (its documentation's page "Attributes"), by name.

use std::fmt;

macro_rules! attributes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is known of a request or connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Attribute {
            $($(#[$doc])* $variant,)*
        }

        impl Attribute {
            const ALL: &[(&str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

attributes! {
    RequestPath = "request.path",
    RequestUrlPath = "request.url_path",
    RequestHost = "request.host",
    RequestScheme = "request.scheme",
    RequestMethod = "request.method",
    RequestHeaders = "request.headers",
    RequestReferer = "request.referer",
    RequestUserAgent = "request.useragent",
    RequestId = "request.id",
    RequestProtocol = "request.protocol",
    RequestQuery = "request.query",
    /// Seconds.
    RequestDuration = "request.duration",
    RequestSize = "request.size",
    ResponseCode = "response.code",
    ResponseCodeDetails = "response.code_details",
    ResponseGrpcStatus = "response.grpc_status",
    ResponseHeaders = "response.headers",
    ResponseTrailers = "response.trailers",
    ResponseSize = "response.size",
    SourceAddress = "source.address",
    SourcePort = "source.port",
    DestinationAddress = "destination.address",
    DestinationPort = "destination.port",
    ConnectionId = "connection.id",
    ConnectionMtls = "connection.mtls",
    ConnectionServerName = "connection.requested_server_name",
    ConnectionTlsVersion = "connection.tls_version",
    ConnectionTermination = "connection.termination_details",
    LocalSubject = "connection.subject_local_certificate",
    PeerSubject = "connection.subject_peer_certificate",
    LocalDns = "connection.dns_san_local_certificate",
    PeerDns = "connection.dns_san_peer_certificate",
    LocalUri = "connection.uri_san_local_certificate",
    PeerUri = "connection.uri_san_peer_certificate",
    PeerDigest = "connection.sha256_peer_certificate_digest",
    UpstreamAddress = "upstream.address",
    UpstreamPort = "upstream.port",
    UpstreamPeerUri = "upstream.uri_san_peer_certificate",
    UpstreamLocalUri = "upstream.uri_san_local_certificate",
    UpstreamFailure = "upstream.transport_failure_reason",
    UpstreamAttempts = "upstream.request_attempt_count",
    ClusterName = "xds.cluster_name",
    HostMetadata = "xds.upstream_host_metadata",
    /// Of the bootstrap: the same for all requests.
    Node = "xds.node",
    RouteName = "xds.route_name",
    FilterChainName = "xds.filter_chain_name",
    DynamicMetadata = "metadata",
    FilterState = "filter_state",
}

/// A step into what an attribute holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Name(Box<str>),
    Index(usize),
}

/// An attribute, or what lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    pub attribute: Attribute,
    pub keys: Vec<Key>,
}

impl Path {
    /// The path that a chain of names and indices stands for.
    ///
    /// # Errors
    /// There is no attribute of this name.
    pub(super) fn of(steps: &[Key]) -> Result<Self, String> {
        let name = |count: usize| {
            let names: Vec<&str> = steps.iter().take(count).filter_map(Key::name).collect();
            (names.len() == count).then(|| names.join("."))
        };
        // Istio's expressions have the node by this name, too.
        if let [Key::Name(first), keys @ ..] = steps
            && **first == *"node"
        {
            let path = Self { attribute: Attribute::Node, keys: keys.to_vec() };
            return if path.makes_sense() { Ok(path) } else { Err("there is nothing like that in `node`".to_owned()) };
        }
        for count in [2, 1] {
            let named = name(count).filter(|_| steps.len() >= count);
            let found = named.and_then(|name| Attribute::ALL.iter().find(|(known, _)| *known == name));
            if let Some((name, attribute)) = found {
                let path = Self { attribute: *attribute, keys: steps[count..].to_vec() };
                return if path.makes_sense() {
                    Ok(path)
                } else {
                    Err(format!("there is nothing like that in `{name}`"))
                };
            }
        }
        let shown = name(steps.len().min(2)).or_else(|| name(1)).unwrap_or_default();
        Err(format!("`{shown}` is not an attribute that is known"))
    }

    fn makes_sense(&self) -> bool {
        let name = |at: usize| self.keys.get(at).and_then(Key::name);
        match self.attribute {
            Attribute::RequestHeaders | Attribute::ResponseHeaders | Attribute::ResponseTrailers => {
                self.keys.len() == 1 && name(0).is_some_and(is_token)
            }
            // All that is kept of it.
            Attribute::HostMetadata => {
                (name(0), name(1), name(2)) == (Some("filter_metadata"), Some("istio"), Some("workload"))
                    && self.keys.len() == 3
            }
            Attribute::Node => !self.keys.is_empty() && self.keys.iter().all(|key| key.name().is_some()),
            Attribute::DynamicMetadata => {
                self.keys.len() >= 2 && name(0) == Some("filter_metadata") && name(1).is_some()
            }
            Attribute::FilterState => {
                let known = matches!(name(1), Some("request_message_count" | "response_message_count"));
                self.keys.len() == 2 && name(0) == Some("envoy.filters.http.grpc_stats") && known
            }
            _ => self.keys.is_empty(),
        }
    }

    /// The name of a header, where the path leads to one; empty otherwise.
    pub fn header(&self) -> &str {
        self.keys.first().and_then(Key::name).unwrap_or_default()
    }
}

/// RFC 9110, section 5.6.2: what names of headers are made of; a pseudo header begins with a colon.
fn is_token(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    let marks = b"!#$%&'*+-.^_`|~";
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
}

impl Key {
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Index(_) => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Attribute::ALL.iter().find(|(_, known)| *known == self.attribute).map_or("", |(name, _)| name);
        f.write_str(name)?;
        for key in &self.keys {
            match key {
                Key::Name(name) => write!(f, "['{name}']")?,
                Key::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

//! A request's record as the attributes that expressions look at.

use std::borrow::Cow;

use http::HeaderValue;
use lateen_cel::{Attribute, Attributes, Key, Path, Value};
use lateen_engine::config::endpoint::HostAddress;
use lateen_engine::message::Headers;

use super::operators;
use super::stream_info::StreamInfo;

impl Attributes for StreamInfo {
    fn value(&self, path: &Path) -> Option<Value> {
        match path.attribute {
            Attribute::ConnectionMtls => Some(Value::Bool(self.connection.peer().is_some())),
            Attribute::DynamicMetadata => {
                let (filter, rest) = path.keys.get(1..)?.split_first()?;
                let fields = self.metadata.fields(filter.name()?)?;
                match rest.split_first() {
                    None => Some(Value::Struct(fields.clone())),
                    Some((first, rest)) => within(fields.get(first.name()?)?, rest),
                }
            }
            Attribute::Node => within(&self.connection.node, &path.keys),
            _ => match self.number(path) {
                Some(number) => Some(Value::Number(number)),
                None => self.text(path).map(|text| Value::String(text.into_owned())),
            },
        }
    }
}

impl StreamInfo {
    /// Appends what is at a path in a form by which values can be told apart.
    pub(super) fn append(&self, path: &Path, out: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _ = match (self.text(path), self.number(path)) {
            (Some(text), _) => out.write_all(text.as_bytes()),
            (None, Some(number)) => write!(out, "{number}"),
            (None, None) => self.value(path).map_or(Ok(()), |value| write!(out, "{value}")),
        };
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts bytes by 2^53")]
    fn number(&self, path: &Path) -> Option<f64> {
        let (connection, messages) = (&self.connection, self.messages.as_deref());
        Some(match path.attribute {
            Attribute::RequestDuration => self.duration.as_secs_f64(),
            Attribute::RequestSize => self.received as f64,
            Attribute::ResponseSize => self.sent as f64,
            Attribute::ResponseCode if self.status > 0 => f64::from(self.status),
            Attribute::ResponseGrpcStatus => f64::from(operators::grpc_status(self)?),
            Attribute::SourcePort => f64::from(connection.remote.port()),
            Attribute::DestinationPort => f64::from(connection.local.port()),
            Attribute::ConnectionId => connection.id as f64,
            Attribute::UpstreamAttempts => f64::from(self.attempts),
            Attribute::UpstreamPort => match &self.upstream_endpoint.as_ref()?.address {
                HostAddress::Socket(address) => f64::from(address.port()),
                HostAddress::Name(_, port) => f64::from(*port),
                HostAddress::Pipe(_) => return None,
            },
            Attribute::FilterState => match path.keys.get(1).and_then(Key::name) {
                Some("request_message_count") => messages?.requests.get() as f64,
                _ => messages?.responses.get() as f64,
            },
            _ => return None,
        })
    }

    fn text(&self, path: &Path) -> Option<Cow<'_, str>> {
        let connection = &*self.connection;
        let (tls, peer) = (connection.tls.as_deref(), connection.peer());
        let found: Option<Cow<'_, str>> = match path.attribute {
            Attribute::RequestPath => bytes(self.original_path.as_ref().unwrap_or(&self.path)),
            Attribute::RequestUrlPath => {
                bytes(self.original_path.as_ref().unwrap_or(&self.path)).map(|path| match path.find('?') {
                    Some(query) => Cow::Owned(path[..query].to_owned()),
                    None => path,
                })
            }
            Attribute::RequestQuery => bytes(self.original_path.as_ref().unwrap_or(&self.path))
                .map(|path| Cow::Owned(path.split_once('?').map_or("", |(_, query)| query).to_owned())),
            Attribute::RequestHost => bytes(&self.authority),
            Attribute::RequestScheme => {
                self.method.is_some().then_some(if tls.is_some() { "https" } else { "http" }.into())
            }
            Attribute::RequestMethod => self.method.as_ref().map(|method| method.as_str().into()),
            Attribute::RequestProtocol => self.protocol.map(|version| version.as_str().into()),
            Attribute::RequestHeaders => match path.header() {
                ":path" => bytes(&self.path),
                ":authority" => bytes(&self.authority),
                ":method" => self.method.as_ref().map(|method| method.as_str().into()),
                name => header(&self.request_headers, name),
            },
            Attribute::RequestReferer => header(&self.request_headers, "referer"),
            Attribute::RequestUserAgent => header(&self.request_headers, "user-agent"),
            Attribute::RequestId => header(&self.request_headers, "x-request-id"),
            Attribute::ResponseHeaders => header(&self.response_headers, path.header()),
            Attribute::ResponseTrailers => header(&self.trailers, path.header()),
            Attribute::ResponseCodeDetails => (self.status != 0).then(|| Cow::Borrowed(&*self.details)),
            Attribute::SourceAddress => Some(connection.remote_text().into()),
            Attribute::DestinationAddress => Some(connection.local_text().into()),
            Attribute::ConnectionServerName => connection.sni.as_deref().map(Into::into),
            Attribute::ConnectionTlsVersion => tls.map(|tls| tls.version.into()),
            Attribute::ConnectionTermination => self.termination.map(Into::into),
            Attribute::LocalSubject => tls.map(|tls| tls.local.subject.as_str().into()),
            Attribute::PeerSubject => peer.map(|peer| peer.subject.as_str().into()),
            Attribute::LocalDns => tls.and_then(|tls| Some(tls.local.dns_sans.first()?.as_str().into())),
            Attribute::PeerDns => peer.and_then(|peer| Some(peer.dns_sans.first()?.as_str().into())),
            Attribute::LocalUri => tls.and_then(|tls| Some(tls.local.uri_sans.first()?.as_str().into())),
            Attribute::PeerUri => peer.and_then(|peer| Some(peer.uri_sans.first()?.as_str().into())),
            Attribute::PeerDigest => peer.and(tls).map(|tls| tls.certificate_hash.as_str().into()),
            Attribute::UpstreamAddress => self.upstream_host.as_deref().map(Into::into),
            Attribute::UpstreamPeerUri => self.upstream_tls.as_ref().map(|tls| (&*tls.peer_uri).into()),
            Attribute::UpstreamLocalUri => self.upstream_tls.as_ref().map(|tls| (&*tls.local_uri).into()),
            Attribute::UpstreamFailure => self.upstream_failure.as_deref().map(Into::into),
            Attribute::ClusterName => self.cluster.as_deref().map(Into::into),
            Attribute::HostMetadata => self.upstream_endpoint.as_ref().map(|endpoint| (&*endpoint.workload).into()),
            Attribute::RouteName => self.route.as_deref().map(Into::into),
            Attribute::FilterChainName => Some((&*connection.chain).into()),
            _ => None,
        };
        found.filter(|text| !text.is_empty())
    }
}

/// What lies in a value.
fn within(value: &Value, keys: &[Key]) -> Option<Value> {
    let found = keys.iter().try_fold(value, |value, key| match (value, key) {
        (Value::List(list), Key::Index(index)) => list.get(*index),
        (value, key) => value.get(key.name()?),
    });
    found.cloned()
}

fn bytes(bytes: &[u8]) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes))
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<Cow<'a, str>> {
    let name = http::HeaderName::try_from(name).ok()?;
    headers.get(&name).map(HeaderValue::as_bytes).and_then(bytes)
}

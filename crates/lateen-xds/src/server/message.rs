//! One form for the requests and responses of both variants of the protocol.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as xds;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::Variant;
use crate::Resource;

/// A request, of either variant.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub type_url: String,
    pub nonce: String,
    /// Why the response with this nonce is refused.
    pub error: Option<String>,
    pub names: Names,
}

/// How a request changes what its sender wants.
#[derive(Debug, Clone)]
pub enum Names {
    Delta {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        /// What the client holds from an earlier stream, with versions.
        held: HashMap<String, String>,
    },
    /// State of the world: all names wanted.
    All(Vec<String>),
}

impl Names {
    /// Whether something may be asked for that was not before.
    pub(super) fn ask(&self) -> bool {
        match self {
            Self::Delta { subscribe, .. } => !subscribe.is_empty(),
            Self::All(_) => true,
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl From<xds::DeltaDiscoveryRequest> for Request {
    fn from(request: xds::DeltaDiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            names: Names::Delta {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                held: request.initial_resource_versions,
            },
        }
    }
}

impl From<xds::DiscoveryRequest> for Request {
    fn from(request: xds::DiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            names: Names::All(request.resource_names),
        }
    }
}

/// A response, of either variant.
#[derive(Debug, Clone)]
pub struct Response {
    pub type_url: String,
    pub nonce: String,
    pub revision: u64,
    pub resources: Vec<Resource>,
    /// Names that are gone, or asked for and not there; empty in the state-of-the-world variant.
    pub removed: Vec<String>,
}

impl Response {
    /// The message of the delta variant.
    pub fn to_delta(&self) -> xds::DeltaDiscoveryResponse {
        xds::DeltaDiscoveryResponse { resources: self.resources.iter().map(wrap).collect(), ..self.delta_head() }
    }

    /// Everything but the resources.
    fn delta_head(&self) -> xds::DeltaDiscoveryResponse {
        xds::DeltaDiscoveryResponse {
            system_version_info: self.revision.to_string(),
            type_url: self.type_url.clone(),
            removed_resources: self.removed.clone(),
            nonce: self.nonce.clone(),
            control_plane: Some(control_plane()),
            ..Default::default()
        }
    }

    /// The message of the state-of-the-world variant, whose resources carry no names and versions of their own.
    fn to_state_of_the_world(&self) -> xds::DiscoveryResponse {
        xds::DiscoveryResponse {
            version_info: self.revision.to_string(),
            resources: self.resources.iter().map(Resource::to_any).collect(),
            type_url: self.type_url.clone(),
            nonce: self.nonce.clone(),
            control_plane: Some(control_plane()),
            ..Default::default()
        }
    }

    /// The message as gRPC sends it: not compressed, its length, itself. Bodies are copied once, to where they are sent from.
    pub(super) fn frame(&self, variant: Variant) -> Bytes {
        match variant {
            Variant::StateOfTheWorld => framed(&self.to_state_of_the_world(), 0, |_| ()),
            Variant::Delta => {
                let sizes: Vec<usize> = self.resources.iter().map(wrapped_len).collect();
                let more =
                    sizes.iter().map(|size| key_len(DELTA_RESOURCES) + encoded_len_varint(*size as u64) + size).sum();
                framed(&self.delta_head(), more, |out| {
                    for (resource, size) in self.resources.iter().zip(sizes) {
                        encode_key(DELTA_RESOURCES, WireType::LengthDelimited, out);
                        encode_varint(size as u64, out);
                        put_wrapped(resource, out);
                    }
                })
            }
        }
    }
}

/// Field numbers of `DeltaDiscoveryResponse.resources`, and of `Resource`: `version`, `resource`, `name`.
const DELTA_RESOURCES: u32 = 2;
const VERSION: u32 = 1;
const RESOURCE: u32 = 2;
const NAME: u32 = 3;

/// Field numbers of `google.protobuf.Any`.
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;

/// A message with `more` bytes of fields behind it, which `put_more` writes (protobuf: fields come in any order).
fn framed(message: &impl Message, more: usize, put_more: impl FnOnce(&mut BytesMut)) -> Bytes {
    let length = message.encoded_len() + more;
    let mut out = BytesMut::with_capacity(5 + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("responses are cut long before 4 GB"));
    message.encode(&mut out).expect("it has the room that it needs");
    put_more(&mut out);
    out.freeze()
}

/// Bytes of a field of this length, with its key and its length.
fn field_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

fn any_len(resource: &Resource) -> usize {
    let field = |number, length| if length > 0 { field_len(number, length) } else { 0 };
    field(TYPE_URL, resource.type_url().len()) + field(VALUE, resource.len())
}

fn wrapped_len(resource: &Resource) -> usize {
    field_len(VERSION, version_text(resource.version).len())
        + field_len(RESOURCE, any_len(resource))
        + field_len(NAME, resource.name.len())
}

/// What [`wrap`] encodes to.
fn put_wrapped(resource: &Resource, out: &mut BytesMut) {
    let put_text = |number: u32, text: &str, out: &mut BytesMut| {
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(text.len() as u64, out);
        out.put_slice(text.as_bytes());
    };
    put_text(VERSION, &version_text(resource.version), out);
    encode_key(RESOURCE, WireType::LengthDelimited, out);
    encode_varint(any_len(resource) as u64, out);
    // `google.protobuf.Any`, whose fields are left out where they are empty.
    if !resource.type_url().is_empty() {
        put_text(TYPE_URL, resource.type_url(), out);
    }
    if resource.len() > 0 {
        encode_key(VALUE, WireType::LengthDelimited, out);
        encode_varint(resource.len() as u64, out);
        resource.put(out);
    }
    put_text(NAME, &resource.name, out);
}

fn wrap(resource: &Resource) -> xds::Resource {
    xds::Resource {
        name: resource.name.to_string(),
        version: version_text(resource.version),
        resource: Some(resource.to_any()),
        ..Default::default()
    }
}

fn control_plane() -> ControlPlane {
    ControlPlane { identifier: concat!("lateend ", env!("CARGO_PKG_VERSION")).to_owned() }
}

pub(super) fn version_text(version: u64) -> String {
    format!("{version:x}")
}

/// The version in a client's words; none when it is not one of ours.
pub(super) fn parse_version(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Any;

    use super::*;

    #[test]
    fn what_is_sent_is_the_message() {
        let resource = |name: &str, version, bytes: usize| {
            let any = Any { type_url: "type.example/x".to_owned(), value: vec![7; bytes] };
            Resource::of_any(name, version, any)
        };
        let response = Response {
            type_url: "type.example/x".to_owned(),
            nonce: "12".to_owned(),
            revision: 34,
            resources: vec![resource("a", 0, 0), resource(&"b".repeat(300), u64::MAX, 70_000), resource("", 1, 1)],
            removed: vec!["gone".to_owned()],
        };
        let frame = response.frame(Variant::Delta);
        assert_eq!((frame[0], frame[1..5].to_vec()), (0, u32::to_be_bytes(frame.len() as u32 - 5).to_vec()));
        let sent = xds::DeltaDiscoveryResponse::decode(&frame[5..]).expect("it is a message");
        assert_eq!(sent, response.to_delta());
        let frame = response.frame(Variant::StateOfTheWorld);
        let sent = xds::DiscoveryResponse::decode(&frame[5..]).expect("it is a message");
        assert_eq!(sent, response.to_state_of_the_world());
    }
}

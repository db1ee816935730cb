//! One form for the requests and responses of both variants of the protocol.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as xds;

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
    /// Copies the bodies once, into the message that goes to the wire.
    pub fn to_delta(&self) -> xds::DeltaDiscoveryResponse {
        xds::DeltaDiscoveryResponse {
            system_version_info: self.revision.to_string(),
            resources: self.resources.iter().map(wrap).collect(),
            type_url: self.type_url.clone(),
            removed_resources: self.removed.clone(),
            nonce: self.nonce.clone(),
            control_plane: Some(control_plane()),
            ..Default::default()
        }
    }

    /// The same for the state-of-the-world variant, whose resources carry no names and versions of their own.
    pub fn to_state_of_the_world(&self) -> xds::DiscoveryResponse {
        xds::DiscoveryResponse {
            version_info: self.revision.to_string(),
            resources: self.resources.iter().map(|resource| resource.any().clone()).collect(),
            type_url: self.type_url.clone(),
            nonce: self.nonce.clone(),
            control_plane: Some(control_plane()),
            ..Default::default()
        }
    }
}

fn wrap(resource: &Resource) -> xds::Resource {
    xds::Resource {
        name: resource.name.to_string(),
        version: version_text(resource.version),
        resource: Some(resource.any().clone()),
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

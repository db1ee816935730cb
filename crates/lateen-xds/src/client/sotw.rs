//! The state of the world protocol in terms of the delta one, so that there is one [`super::State`] for both.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name as _};

/// What has to be said again with every request, by type URL.
#[derive(Debug, Default)]
pub(super) struct Translator(BTreeMap<String, Type>);

#[derive(Debug, Default)]
struct Type {
    /// Asked for by name; nothing with `everything`.
    names: BTreeSet<String>,
    everything: bool,
    /// The version that was accepted last.
    accepted: String,
    /// The newest response.
    nonce: String,
    version: String,
    /// What the last response had.
    present: BTreeSet<String>,
}

/// Field 1 of every resource is its name.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Translator {
    /// A new stream: no response of it has been seen. What was accepted is said to have been.
    pub(super) fn connected(&mut self) {
        for of in self.0.values_mut() {
            of.nonce.clear();
            of.names.clear();
            of.everything = false;
        }
    }

    /// xDS protocol, "ACK/NACK and resource type instance version": a request names everything that is wanted, the last
    /// version that was accepted, and the newest response.
    pub(super) fn request(&mut self, delta: DeltaDiscoveryRequest) -> DiscoveryRequest {
        let of = self.0.entry(delta.type_url.clone()).or_default();
        for name in delta.resource_names_unsubscribe {
            of.names.remove(&name);
            of.everything &= name != "*";
        }
        for name in delta.resource_names_subscribe {
            if name == "*" {
                of.everything = true;
            } else {
                of.names.insert(name);
            }
        }
        let answers = !delta.response_nonce.is_empty() && delta.response_nonce == of.nonce;
        if answers && delta.error_detail.is_none() {
            of.accepted.clone_from(&of.version);
        }
        DiscoveryRequest {
            version_info: of.accepted.clone(),
            node: delta.node,
            // The wildcard is an empty list.
            resource_names: if of.everything { Vec::new() } else { of.names.iter().cloned().collect() },
            type_url: delta.type_url,
            response_nonce: if delta.response_nonce.is_empty() { of.nonce.clone() } else { delta.response_nonce },
            error_detail: delta.error_detail,
            ..DiscoveryRequest::default()
        }
    }

    /// A response of clusters or listeners has all there are: what is missing is gone (xDS protocol, "deleting resources").
    pub(super) fn response(&mut self, response: DiscoveryResponse) -> DeltaDiscoveryResponse {
        let of = self.0.entry(response.type_url.clone()).or_default();
        of.nonce.clone_from(&response.nonce);
        of.version.clone_from(&response.version_info);
        let version = &response.version_info;
        let resources: Vec<Resource> = response.resources.into_iter().map(|any| resource(any, version)).collect();
        let present: BTreeSet<String> = resources.iter().map(|resource| resource.name.clone()).collect();
        let removed = if of.everything { of.present.difference(&present).cloned().collect() } else { Vec::new() };
        of.present = present;
        DeltaDiscoveryResponse {
            system_version_info: response.version_info,
            resources,
            type_url: response.type_url,
            removed_resources: removed,
            nonce: response.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

/// A server may wrap a resource to name it. One whose name cannot be read has none, and will be refused.
fn resource(any: Any, version: &str) -> Resource {
    if any.type_url == Resource::type_url()
        && let Ok(wrapped) = Resource::decode(any.value.as_slice())
    {
        return Resource { version: version.to_owned(), ..wrapped };
    }
    let name = Named::decode(any.value.as_slice()).map(|named| named.name).unwrap_or_default();
    Resource { name, version: version.to_owned(), resource: Some(any), ..Resource::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_url::{CLUSTER, ENDPOINT};

    fn ask(type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn answer(type_url: &str, nonce: &str, refused: bool) -> DeltaDiscoveryRequest {
        let error_detail = refused.then(Default::default);
        DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail, ..ask(type_url, &[], &[]) }
    }

    fn response(type_url: &str, version: &str, names: &[&str]) -> DiscoveryResponse {
        let resource = |name: &&str| Any {
            type_url: type_url.to_owned(),
            value: Named { name: (*name).to_owned() }.encode_to_vec(),
        };
        DiscoveryResponse {
            version_info: version.to_owned(),
            resources: names.iter().map(resource).collect(),
            type_url: type_url.to_owned(),
            nonce: format!("n{version}"),
            ..DiscoveryResponse::default()
        }
    }

    fn said(request: &DiscoveryRequest) -> (&str, &str, Vec<&str>) {
        let names = request.resource_names.iter().map(String::as_str).collect();
        (&request.version_info, &request.response_nonce, names)
    }

    #[test]
    fn a_refusal_repeats_the_version_that_was_accepted_last() {
        let mut sotw = Translator::default();
        assert_eq!(said(&sotw.request(ask(CLUSTER, &["*"], &[]))), ("", "", vec![]));
        sotw.response(response(CLUSTER, "1", &["a", "b"]));
        assert_eq!(said(&sotw.request(answer(CLUSTER, "n1", false))), ("1", "n1", vec![]));
        let delta = sotw.response(response(CLUSTER, "2", &["b", "c"]));
        assert_eq!(delta.removed_resources, ["a"], "what is missing is gone");
        assert_eq!(said(&sotw.request(answer(CLUSTER, "n2", true))), ("1", "n2", vec![]));
        sotw.connected();
        assert_eq!(said(&sotw.request(ask(CLUSTER, &["*"], &[]))), ("1", "", vec![]));
        assert_eq!(sotw.response(response(CLUSTER, "3", &["c"])).removed_resources, ["b"]);
    }

    #[test]
    fn names_are_all_said_each_time_and_what_is_not_sent_is_not_gone() {
        let mut sotw = Translator::default();
        assert_eq!(said(&sotw.request(ask(ENDPOINT, &["a", "b"], &[]))), ("", "", vec!["a", "b"]));
        let delta = sotw.response(response(ENDPOINT, "1", &["a", "b"]));
        assert_eq!(delta.resources.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        sotw.request(answer(ENDPOINT, "n1", false));
        assert!(sotw.response(response(ENDPOINT, "2", &["a"])).removed_resources.is_empty());
        assert_eq!(said(&sotw.request(ask(ENDPOINT, &["c"], &["a"]))), ("1", "n2", vec!["b", "c"]));
    }
}

//! The client's state: what is wanted, what is held, what has still to be said.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;

/// `google.rpc.Code.INVALID_ARGUMENT`: what a NACK says.
const INVALID_ARGUMENT: i32 = 3;

/// An error text is sent up to this length.
const MESSAGE_BYTES: usize = 16 << 10;

/// Which resources of a type are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Whatever the server has for this node (the wildcard).
    All,
    Named(BTreeSet<Arc<str>>),
}

impl Interest {
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }

    /// The names, and whether everything is wanted.
    fn parts<'a>(&'a self, none: &'a BTreeSet<Arc<str>>) -> (&'a BTreeSet<Arc<str>>, bool) {
        match self {
            Self::All => (none, true),
            Self::Named(names) => (names, false),
        }
    }
}

/// A change of the resources of one type, to be applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    pub type_url: String,
    /// Of the whole, as the server names it (`system_version_info`); may be empty.
    pub version: String,
    pub upserts: Vec<Upsert>,
    /// Names that are gone, or asked for and not there.
    pub removals: Vec<String>,
}

/// A new resource, or a new version of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Upsert {
    pub name: String,
    pub version: String,
    pub body: Any,
}

/// A resource that could not be applied, and why. A former version of it stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub resource: String,
    pub reason: String,
}

/// A response that has been read and whose update waits to be applied: give it back to [`State::applied`].
#[derive(Debug)]
#[must_use]
pub struct Received {
    type_url: String,
    nonce: String,
    versions: Vec<(String, String)>,
    removals: Vec<String>,
    /// What made parts of the response unusable before anyone looked into them.
    malformed: Vec<Rejection>,
}

/// The client's side of the protocol, over any number of streams.
#[derive(Debug)]
pub struct State {
    node: Node,
    types: Vec<Type>,
    /// The node has been sent on this stream.
    introduced: bool,
    /// Types with something to say, in the order in which it came up.
    answers: VecDeque<(usize, DeltaDiscoveryRequest)>,
}

#[derive(Debug)]
struct Type {
    url: String,
    interest: Interest,
    /// Versions of what is in force.
    held: BTreeMap<String, String>,
    /// The interest as the server knows it on this stream; none before the first request.
    told: Option<Interest>,
    /// Names that the server was told are wanted, and that were not for a while: what came then was not kept.
    missed: BTreeSet<Arc<str>>,
    last_nonce: String,
}

impl State {
    pub fn new(node: Node) -> Self {
        Self { node, types: Vec::new(), introduced: false, answers: VecDeque::new() }
    }

    /// A new stream is open: everything has to be said again, and what is held is said to be held.
    pub fn connected(&mut self) {
        self.introduced = false;
        self.answers.clear();
        for of in &mut self.types {
            of.told = None;
            of.missed.clear();
            of.last_nonce.clear();
        }
    }

    /// Says what is wanted of a type. Types are asked for in the order in which they were first given. Names of resources
    /// that are held and not wanted any more come back: the server will not speak of them again.
    pub fn set_interest(&mut self, type_url: &str, interest: Interest) -> Vec<String> {
        let Some(of) = self.types.iter_mut().find(|of| of.url == type_url) else {
            self.types.push(Type::new(type_url, interest));
            return Vec::new();
        };
        of.interest = interest;
        if let Some(Interest::Named(told)) = &of.told {
            of.missed.extend(told.iter().filter(|name| !of.interest.covers(name)).cloned());
        }
        let dropped: Vec<_> = of.held.keys().filter(|name| !of.interest.covers(name)).cloned().collect();
        dropped.iter().for_each(|name| drop(of.held.remove(name)));
        dropped
    }

    /// Reads a response. Nothing comes back for one that has been answered before and for types that were never asked for.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Option<(Update, Received)> {
        let of = self.types.iter_mut().find(|of| of.url == response.type_url)?;
        if of.told.is_none() || (!response.nonce.is_empty() && of.last_nonce == response.nonce) {
            return None;
        }
        of.last_nonce.clone_from(&response.nonce);
        let mut update =
            Update { type_url: response.type_url, version: response.system_version_info, ..Update::default() };
        let (mut versions, mut malformed) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for resource in response.resources {
            // A server may send what nobody asked for (anymore).
            if !of.interest.covers(&resource.name) {
                continue;
            }
            let reason = match &resource.resource {
                None => Some("it has no body".to_owned()),
                Some(any) if any.type_url != of.url => Some(format!("its body is of type {}", any.type_url)),
                Some(_) if !seen.insert(resource.name.clone()) => Some("it is there twice".to_owned()),
                Some(_) => None,
            };
            match (reason, resource.resource) {
                (None, Some(body)) => {
                    let upsert = Upsert { name: resource.name, version: resource.version, body };
                    versions.push((upsert.name.clone(), upsert.version.clone()));
                    update.upserts.push(upsert);
                }
                (reason, _) => {
                    let reason = reason.unwrap_or_default();
                    malformed.push(Rejection { resource: resource.name, reason });
                }
            }
        }
        let removed = response.removed_resources.into_iter();
        update.removals = removed.filter(|name| of.interest.covers(name) && !seen.contains(name)).collect();
        let type_url = update.type_url.clone();
        let removals = update.removals.clone();
        Some((update, Received { type_url, nonce: response.nonce, versions, removals, malformed }))
    }

    /// Answers a response, now that it is in force: an ACK, or a NACK that names each refused resource on a line of its own.
    pub fn applied(&mut self, received: Received, mut rejections: Vec<Rejection>) {
        rejections.splice(0..0, received.malformed);
        let Some(at) = self.types.iter().position(|of| of.url == received.type_url) else { return };
        let of = &mut self.types[at];
        let refused: HashSet<&str> = rejections.iter().map(|rejection| rejection.resource.as_str()).collect();
        for (name, version) in received.versions {
            // Not wanted any more, should the interest have changed meanwhile.
            if !refused.contains(name.as_str()) && of.interest.covers(&name) {
                of.held.insert(name, version);
            }
        }
        for name in received.removals.iter().filter(|name| !refused.contains(name.as_str())) {
            of.held.remove(name);
        }
        let error_detail = (!rejections.is_empty()).then(|| nack(&rejections));
        let answer = DeltaDiscoveryRequest {
            type_url: of.url.clone(),
            response_nonce: received.nonce,
            error_detail,
            ..Default::default()
        };
        self.answers.push_back((at, answer));
    }

    /// The next request to send: answers in their order, a change of interest riding on an answer of its type; then what
    /// else the server does not know.
    pub fn poll(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut request = match self.answers.pop_front() {
            Some((at, answer)) => match self.types[at].change() {
                Some(change) => DeltaDiscoveryRequest {
                    response_nonce: answer.response_nonce,
                    error_detail: answer.error_detail,
                    ..change
                },
                None => answer,
            },
            None => self.types.iter_mut().find_map(Type::change)?,
        };
        if !self.introduced {
            self.introduced = true;
            request.node = Some(self.node.clone());
        }
        Some(request)
    }

    /// Versions of the resources of a type that are in force.
    pub fn held(&self, type_url: &str) -> impl Iterator<Item = (&str, &str)> {
        let of = self.types.iter().find(|of| of.url == type_url);
        of.into_iter().flat_map(|of| &of.held).map(|(name, version)| (name.as_str(), version.as_str()))
    }
}

impl Type {
    fn new(url: &str, interest: Interest) -> Self {
        Self {
            url: url.to_owned(),
            interest,
            held: BTreeMap::new(),
            told: None,
            missed: BTreeSet::new(),
            last_nonce: String::new(),
        }
    }

    /// What the server does not know yet of the interest.
    fn change(&mut self) -> Option<DeltaDiscoveryRequest> {
        let again: BTreeSet<_> = self.missed.iter().filter(|name| self.interest.covers(name)).cloned().collect();
        if self.told.as_ref() == Some(&self.interest) && again.is_empty() {
            return None;
        }
        let none = BTreeSet::new();
        let (before, was_all) = self.told.as_ref().map_or((&none, false), |told| told.parts(&none));
        let (after, is_all) = self.interest.parts(&none);
        // A first request that names nothing would ask for everything.
        if self.told.is_none() && after.is_empty() && !is_all {
            return None;
        }
        let wildcard = || "*".to_owned();
        let subscribe = after.iter().filter(|name| !before.contains(*name) || again.contains(*name));
        let unsubscribe = before.difference(after).map(|name| name.to_string());
        let request = DeltaDiscoveryRequest {
            type_url: self.url.clone(),
            resource_names_subscribe: subscribe
                .map(|name| name.to_string())
                .chain((is_all && !was_all).then(wildcard))
                .collect(),
            resource_names_unsubscribe: unsubscribe.chain((was_all && !is_all).then(wildcard)).collect(),
            initial_resource_versions: match self.told {
                None => self.held.clone().into_iter().collect(),
                Some(_) => HashMap::new(),
            },
            ..Default::default()
        };
        self.told = Some(self.interest.clone());
        self.missed.clear();
        Some(request)
    }
}

fn nack(rejections: &[Rejection]) -> Status {
    let lines: Vec<_> = rejections
        .iter()
        // One line each, whatever the reason has in it.
        .map(|rejection| format!("{}: {}", rejection.resource, rejection.reason.replace('\n', " ")))
        .collect();
    let mut message = lines.join("\n");
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}

#[cfg(test)]
mod tests;

//! A journey as it is told: from whoever asks to whoever answers, proxy by proxy, each step with the object behind it.

use std::time::Duration;

use lateen_mesh::Workload;
use serde::{Serialize, Serializer};

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Journey {
    /// `GET http://reviews:9080/reviews/1`.
    pub request: String,
    pub from: Party,
    /// Where the name of its host leads.
    pub address: String,
    pub first: Leg,
    /// What the caller gets, with the share of requests that get it.
    pub results: Vec<Ending>,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    pub name: String,
    /// Empty: outside the mesh.
    pub namespace: String,
    /// As its certificate has it (`spiffe://…`); empty without one.
    pub identity: String,
    pub address: String,
}

impl Party {
    pub(crate) fn of(workload: &Workload, trust_domain: &str) -> Self {
        Self {
            name: workload.name.to_string(),
            namespace: workload.namespace.to_string(),
            identity: format!("spiffe://{trust_domain}/ns/{}/sa/{}", workload.namespace, workload.service_account),
            address: workload.addresses.first().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

/// `name.namespace`.
impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, ".{}", self.namespace) }
    }
}

/// What a party has to do with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It asks, and what stands between it and the network sends the request on its way.
    Caller,
    Gateway,
    /// It answers, unless what stands before it does.
    Server,
}

/// One party's part in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leg {
    pub role: Role,
    pub at: Party,
    pub steps: Vec<Step>,
    /// The policies that were asked, in the order in which they are.
    pub verdicts: Vec<PolicyVerdict>,
    pub fault: Option<Fault>,
    pub forwarding: Option<Forwarding>,
    pub outcome: Outcome,
}

/// What happens at one place, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub stage: Stage,
    pub said: String,
    /// What else is to be known of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The objects behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    Capture,
    Dns,
    Listener,
    FilterChain,
    Tls,
    Path,
    Route,
    Nearest,
    Policy,
    Token,
    RateLimit,
    Filter,
    Fault,
    Rewrite,
    Timeout,
    Retry,
    Mirror,
    Destination,
    Endpoints,
    Balancer,
    Breakers,
    Application,
}

impl Stage {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Dns => "dns",
            Self::Listener => "listener",
            Self::FilterChain => "chain",
            Self::Tls => "tls",
            Self::Path => "path",
            Self::Route => "route",
            Self::Nearest => "not taken",
            Self::Policy => "policy",
            Self::Token => "token",
            Self::RateLimit => "rate limit",
            Self::Filter => "filter",
            Self::Fault => "fault",
            Self::Rewrite => "changes",
            Self::Timeout => "timeout",
            Self::Retry => "retries",
            Self::Mirror => "mirror",
            Self::Destination => "to",
            Self::Endpoints => "endpoints",
            Self::Balancer => "balancer",
            Self::Breakers => "limits",
            Self::Application => "app",
        }
    }
}

/// An object, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Empty, if it stands in no file.
    pub file: String,
    /// From 1; 0 without a file.
    pub line: u32,
}

/// `Kind namespace/name`.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What a policy says of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVerdict {
    /// `namespace/name`.
    pub policy: String,
    /// `CUSTOM`, `AUDIT`, `DENY` or `ALLOW`.
    pub action: &'static str,
    /// Only tried.
    pub dry_run: bool,
    /// The rule that matches, from 0.
    pub rule: Option<usize>,
    pub place: Place,
}

/// What happens to a share of requests on purpose; shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    pub delay: Option<(f64, Millis)>,
    pub abort: Option<(f64, u16)>,
}

/// How long, and how often.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// For the whole exchange; none: without limit.
    pub timeout: Option<Millis>,
    pub retries: u32,
    pub retry_on: Vec<String>,
    pub per_try_timeout: Option<Millis>,
    /// The rule of a VirtualService, or whatever else made the route.
    pub route: Option<Place>,
    /// The hosts that get copies, with their shares.
    pub mirrors: Vec<(String, f64)>,
}

/// In JSON, a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub Duration);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How a leg ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Outcome {
    /// The proxy answers itself.
    Answered(Answer),
    /// The connection is closed, or never made.
    Closed { why: String, places: Vec<Place> },
    /// It goes on, in shares.
    Sent { branches: Vec<Branch> },
    /// The application gets it.
    Delivered { to: String },
    /// Beyond the mesh nobody knows.
    Left { to: String },
}

/// An answer that no application gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub status: u16,
    pub why: String,
    /// Envoy's flag in access logs; empty: none.
    pub flag: &'static str,
    pub details: String,
    /// Of redirects.
    pub location: Option<String>,
    /// The policy that denies, `namespace/name`.
    pub policy: Option<String>,
    pub places: Vec<Place>,
}

/// A share of the requests that goes to one cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// From 0 to 1.
    pub share: f64,
    pub cluster: String,
    /// Empty for clusters that stand for no service.
    pub host: String,
    pub subset: String,
    pub port: u16,
    /// How the request goes up; none for what is no HTTP.
    pub head: Option<Head>,
    pub steps: Vec<Step>,
    pub endpoints: Vec<Endpoint>,
    /// The proxies or applications that it comes to, those of equal workloads together.
    pub next: Vec<Next>,
    /// It comes to nobody.
    pub failure: Option<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub method: String,
    pub host: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// A host of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub address: String,
    /// `name.namespace`; empty: unknown.
    pub workload: String,
    pub priority: usize,
    pub zone: String,
    pub weight: u32,
    pub healthy: bool,
    /// Of the branch's requests, from 0 to 1, while all hosts are as they are.
    pub share: f64,
}

/// Workloads for which the request's way is the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    /// Of the branch's requests, from 0 to 1.
    pub share: f64,
    /// `name.namespace`.
    pub workloads: Vec<String>,
    pub leg: Leg,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// From 0 to 1.
    pub share: f64,
    /// The application that answers; `None` where a proxy does, or nobody.
    pub served_by: Option<String>,
    /// The status, where it is not the application's to choose; none also where a connection ends without an answer.
    pub status: Option<u16>,
    pub why: String,
    /// Of redirects.
    pub location: Option<String>,
    /// The policy that denies, `namespace/name`.
    pub policy: Option<String>,
}

impl Leg {
    /// This leg and all behind it, in order.
    pub fn all(&self) -> Vec<&Self> {
        let mut legs = vec![self];
        if let Outcome::Sent { branches } = &self.outcome {
            legs.extend(branches.iter().flat_map(|branch| &branch.next).flat_map(|next| next.leg.all()));
        }
        legs
    }
}

//! `RateLimit`: how many requests workloads take. Istio's API has no word for it and sends its users to EnvoyFilter.
//!
//! What it becomes are Envoy's filters `local_ratelimit` (`spec.local`: each proxy counts for itself) and `ratelimit`
//! (`spec.global`: a service that speaks `envoy.service.ratelimit.v3` counts for all).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scalar::{Duration, HeaderMatch, StringMatch};
use crate::selector::MatchLabels;

/// The spec of a `RateLimit`. Like other policies it holds in its namespace, in the root namespace for the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimit {
    /// Whose requests count: sidecars limit what their workloads are asked, gateways what comes in by them. Absent: those of
    /// all workloads of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<MatchLabels>,
    #[serde(skip_serializing_if = "Mode::is_default")]
    pub mode: Mode,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<LocalLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<GlobalLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Refusal>,
}

/// Whether limits are more than counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    #[default]
    Enforce,
    /// Requests over a limit are counted and let through.
    DryRun,
}

impl Mode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// So many requests, counted by each proxy for itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalLimit {
    /// What the limit is called; unique within the object.
    pub name: String,
    /// Absent: every request.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RequestMatch>,
    /// So many in each `per`.
    pub requests: u32,
    /// Absent: a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// So many at once after a quiet time. Absent: as `requests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// A limit for each combination of what these tell of a request, not one for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<Attribute>,
}

/// What must be true of a request; all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestMatch {
    /// The path without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<StringMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<StringMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<StringMatch>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderMatch>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub without_headers: BTreeMap<String, HeaderMatch>,
}

/// Something told of a request: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    /// The value of a header. Requests without it count together.
    Header(String),
    /// The address of the client, as far as forwarded addresses are trusted.
    ClientAddress(Unit),
}

/// `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {}

/// Limits that a service counts for all proxies. How many requests it allows is the service's to know: its
/// configuration names the domain and the keys and values of `descriptors`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GlobalLimits {
    pub service: RateLimitService,
    /// Which of the service's configurations is meant.
    pub domain: String,
    /// How long to wait for its answer. Absent: 20 ms, as Envoy has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    #[serde(skip_serializing_if = "OnFailure::is_default")]
    pub on_failure: OnFailure,
    pub descriptors: Vec<GlobalDescriptor>,
}

/// A service of the mesh that speaks `envoy.service.ratelimit.v3.RateLimitService`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimitService {
    pub host: String,
    pub port: u32,
}

/// What becomes of requests when the service does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OnFailure {
    #[default]
    Allow,
    Deny,
}

impl OnFailure {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One description of a request, for the service to count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GlobalDescriptor {
    /// Absent: every request.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RequestMatch>,
    pub entries: Vec<Entry>,
}

/// A key and its value: what is written, or what is told of the request. A request that does not tell it is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Entry {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub header: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<Unit>,
}

/// What requests over a limit are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Refusal {
    /// Absent: 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Every answer says what is left, in `x-ratelimit-limit`, `-remaining` and `-reset`; a refusal says when to come back,
    /// in `retry-after`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub report_quota: bool,
}

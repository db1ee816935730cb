//! `envoy.filters.http.rbac`.

use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as proto;
use http::StatusCode;

use crate::config::error::{At, refuse};
use crate::filters::rbac::{RuleSets, Verdict};
use crate::flags::LocalReply;

/// The name under which it speaks, whatever a chain calls it.
pub const NAME: &str = "envoy.filters.http.rbac";

#[derive(Debug)]
pub struct Rbac(pub RuleSets);

impl Rbac {
    pub(crate) fn from_xds(config: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, config; matcher, shadow_matcher);
        let rules = (config.rules.as_ref(), config.shadow_rules.as_ref());
        let prefixes = (config.rules_stat_prefix.as_str(), config.shadow_rules_stat_prefix.as_str());
        RuleSets::from_xds(rules, prefixes, config.track_per_rule_stats, at).map(Self)
    }
}

/// The answer to a request that is denied.
pub fn denial(verdict: &Verdict) -> LocalReply {
    LocalReply::new(StatusCode::FORBIDDEN, "RBAC: access denied", verdict.details())
}

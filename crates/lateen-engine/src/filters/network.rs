//! Network filters that are not terminal.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as proto;

use super::rbac::RuleSets;
use crate::config::error::{At, refuse};

#[derive(Clone, Debug)]
pub enum NetworkFilter {
    Rbac(Arc<NetworkRbac>),
}

/// `envoy.filters.network.rbac`.
#[derive(Debug)]
pub struct NetworkRbac {
    pub stat_prefix: String,
    pub rules: RuleSets,
}

/// The name under which it speaks, whatever a chain calls it.
pub const RBAC: &str = "envoy.filters.network.rbac";

impl NetworkFilter {
    pub(crate) fn rbac(config: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, config; matcher, shadow_matcher, enforcement_type, delay_deny);
        let rules = (config.rules.as_ref(), config.shadow_rules.as_ref());
        let rules = RuleSets::from_xds(rules, ("", &config.shadow_rules_stat_prefix), false, at)?;
        Some(Self::Rbac(Arc::new(NetworkRbac { stat_prefix: config.stat_prefix.clone(), rules })))
    }
}

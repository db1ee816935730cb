//! Network filters that are not terminal.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as proto;

use super::rbac::{Rules, Subject, Verdict};
use crate::config::error::{At, refuse};

#[derive(Clone, Debug)]
pub enum NetworkFilter {
    Rbac(Arc<NetworkRbac>),
}

#[derive(Debug)]
pub struct NetworkRbac {
    pub stat_prefix: String,
    rules: Option<Rules>,
    shadow: Option<Rules>,
}

impl NetworkFilter {
    pub(crate) fn rbac(config: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, config; matcher, shadow_matcher, enforcement_type, delay_deny);
        let rules = |rules: Option<&_>, name: &str| match rules {
            None => Some(None),
            Some(rules) => Rules::from_xds(rules, &at.field(name)).map(Some),
        };
        Some(Self::Rbac(Arc::new(NetworkRbac {
            stat_prefix: config.stat_prefix.clone(),
            rules: rules(config.rules.as_ref(), "rules")?,
            shadow: rules(config.shadow_rules.as_ref(), "shadow_rules")?,
        })))
    }
}

impl NetworkRbac {
    /// Whether the connection may go on.
    pub fn decide(&self, subject: &Subject<'_>) -> Verdict {
        self.rules.as_ref().map_or_else(Verdict::allowed, |rules| rules.decide(subject))
    }

    /// What rules that are only being tried would have said.
    pub fn decide_shadow(&self, subject: &Subject<'_>) -> Option<Verdict> {
        self.shadow.as_ref().map(|rules| rules.decide(subject))
    }
}

//! `envoy.filters.http.rbac`.

use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as proto;
use http::StatusCode;

use super::Step;
use crate::config::error::{At, refuse};
use crate::filters::rbac::{Rules, Subject, Verdict};
use crate::flags::LocalReply;

#[derive(Debug)]
pub struct Rbac {
    rules: Option<Rules>,
    shadow: Option<Rules>,
}

impl Rbac {
    pub(crate) fn from_xds(config: &proto::Rbac, at: &At) -> Option<Self> {
        refuse!(at, config; matcher, shadow_matcher);
        let rules = |rules: Option<&_>, name: &str| match rules {
            None => Some(None),
            Some(rules) => Rules::from_xds(rules, &at.field(name)).map(Some),
        };
        Some(Self {
            rules: rules(config.rules.as_ref(), "rules")?,
            shadow: rules(config.shadow_rules.as_ref(), "shadow_rules")?,
        })
    }

    pub(super) fn on_request(&self, subject: &Subject<'_>) -> Step {
        let Some(rules) = &self.rules else { return Step::Continue };
        let verdict = rules.decide(subject);
        if verdict.allowed {
            return Step::Continue;
        }
        let reply = LocalReply::new(StatusCode::FORBIDDEN, "RBAC: access denied", verdict.details());
        Step::Reply(Box::new(reply))
    }

    /// What rules that are only being tried would have said.
    pub fn decide_shadow(&self, subject: &Subject<'_>) -> Option<Verdict> {
        self.shadow.as_ref().map(|rules| rules.decide(subject))
    }
}

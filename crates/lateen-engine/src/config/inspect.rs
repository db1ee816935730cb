//! Listener filters: what is read of a connection before its filter chain is chosen.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use proto::listener_filter_chain_match_predicate::{MatchSet, Rule};

use super::error::{At, refuse};
use super::scalar::{bool_or, duration, is, open, type_name};

/// What is read of a connection before its filter chain is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspect {
    pub original_dst: bool,
    pub tls: When,
    pub http: When,
    pub proxy_protocol: bool,
    /// None: without limit.
    pub timeout: Option<Duration>,
    /// Go on with what is known when the time is over, instead of closing.
    pub continue_on_timeout: bool,
}

/// Whether an inspector looks at a connection (`ListenerFilter.filter_disabled`).
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    Never,
    Always,
    /// Unless this holds.
    Unless(Predicate),
}

impl When {
    /// For a connection to this port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Unless(predicate) => !predicate.holds(port),
        }
    }
}

/// `envoy.config.listener.v3.ListenerFilterChainMatchPredicate`.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Anything,
    /// From the first to before the last.
    Ports(i32, i32),
    Not(Box<Self>),
    OneOf(Vec<Self>),
    AllOf(Vec<Self>),
}

/// Deeper predicates are refused.
const DEEPEST: usize = 16;

impl Predicate {
    fn holds(&self, port: u16) -> bool {
        match self {
            Self::Anything => true,
            Self::Ports(from, to) => (*from..*to).contains(&i32::from(port)),
            Self::Not(inner) => !inner.holds(port),
            Self::OneOf(list) => list.iter().any(|one| one.holds(port)),
            Self::AllOf(list) => list.iter().all(|one| one.holds(port)),
        }
    }

    fn from_xds(predicate: &proto::ListenerFilterChainMatchPredicate, depth: usize, at: &At) -> Option<Self> {
        if depth > DEEPEST {
            at.error(format!("is more than {DEEPEST} deep"));
            return None;
        }
        let each = |name: &str, set: &MatchSet| -> Option<Vec<Self>> {
            let at = at.field(name);
            let one = |(index, rule)| Self::from_xds(rule, depth + 1, &at.index("rules", index));
            set.rules.iter().enumerate().map(one).collect()
        };
        match &predicate.rule {
            Some(Rule::OrMatch(set)) => each("or_match", set).map(Self::OneOf),
            Some(Rule::AndMatch(set)) => each("and_match", set).map(Self::AllOf),
            Some(Rule::NotMatch(inner)) => {
                Self::from_xds(inner, depth + 1, &at.field("not_match")).map(|inner| Self::Not(Box::new(inner)))
            }
            Some(Rule::AnyMatch(true)) => Some(Self::Anything),
            Some(Rule::DestinationPortRange(range)) => Some(Self::Ports(range.start, range.end)),
            Some(Rule::AnyMatch(false)) | None => {
                at.error("must have a rule");
                None
            }
        }
    }
}

pub(super) fn inspect(listener: &proto::Listener, at: &At) -> Inspect {
    let timeout = duration(listener.listener_filters_timeout.as_ref(), &at.field("listener_filters_timeout"));
    let mut inspect = Inspect {
        original_dst: bool_or(listener.use_original_dst.as_ref(), false),
        tls: When::Never,
        http: When::Never,
        proxy_protocol: false,
        timeout: Some(timeout.unwrap_or(Duration::from_secs(15))).filter(|timeout| !timeout.is_zero()),
        continue_on_timeout: listener.continue_on_listener_filters_timeout,
    };
    for (index, filter) in listener.listener_filters.iter().enumerate() {
        let at = at.index("listener_filters", index);
        let Some(proto::listener_filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
            at.field("typed_config").error("is required");
            continue;
        };
        let when = match &filter.filter_disabled {
            None => When::Always,
            Some(disabled) => {
                let predicate = Predicate::from_xds(disabled, 0, &at.field("filter_disabled"));
                predicate.map_or(When::Always, When::Unless)
            }
        };
        if is::<TlsInspector>(any) {
            inspect.tls = when;
        } else if is::<HttpInspector>(any) {
            inspect.http = when;
        } else if is::<OriginalDst>(any) {
            refuse!(at, filter; filter_disabled);
            inspect.original_dst = true;
        } else if is::<ProxyProtocol>(any) {
            refuse!(at, filter; filter_disabled);
            inspect.proxy_protocol = true;
            if let Some(config) = open::<ProxyProtocol>(any, &at) {
                refuse!(at.field("typed_config"), config; rules, allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions);
            }
        } else {
            at.field("typed_config").error(format!("listener filter {} is not supported", type_name(any)));
        }
    }
    inspect
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspector_runs_unless_its_predicate_holds_for_the_port() {
        let listed = Predicate::OneOf(vec![Predicate::Ports(9080, 9081), Predicate::Ports(3306, 3307)]);
        let off_there = When::Unless(listed.clone());
        assert!(!off_there.holds(9080) && !off_there.holds(3306) && off_there.holds(9081));
        let only_there = When::Unless(Predicate::Not(Box::new(listed)));
        assert!(only_there.holds(9080) && only_there.holds(3306) && !only_there.holds(80));
        assert!(When::Always.holds(1) && !When::Never.holds(1) && !When::Unless(Predicate::Anything).holds(1));
    }
}

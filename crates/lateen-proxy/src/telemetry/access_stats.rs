//! What is counted of who may do what: RBAC filters and external authorizers, under Envoy's names.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::filters::network::NetworkRbac;
use lateen_engine::filters::rbac::{RuleSets, Verdict, Verdicts};

use super::stats::{Counter, Gauge, Registry, Scope};

/// Of one RBAC filter.
#[derive(Debug)]
pub(crate) struct RbacStats {
    enforced: Outcomes,
    shadow: Outcomes,
    /// Requests of which rules that only ask for logging spoke. Envoy has no such number.
    logged: Counter,
}

#[derive(Debug)]
struct Outcomes {
    allowed: Counter,
    denied: Counter,
    /// The same two for each policy, if that is asked for.
    policies: HashMap<Arc<str>, [Counter; 2]>,
}

impl RbacStats {
    /// Of an HTTP filter of the connection manager with that prefix.
    pub(crate) fn of_http(registry: &Registry, prefix: &Arc<str>, rules: &RuleSets) -> Self {
        Self::new(registry, &Scope::Http(Arc::clone(prefix)), "rbac.", rules)
    }

    pub(crate) fn of_network(registry: &Registry, filter: &NetworkRbac) -> Self {
        let prefix = filter.stat_prefix.strip_suffix('.').unwrap_or(&filter.stat_prefix);
        Self::new(registry, &Scope::Named(format!("{prefix}.rbac").into()), "", &filter.rules)
    }

    fn new(registry: &Registry, scope: &Scope, prefix: &str, rules: &RuleSets) -> Self {
        let [enforced, shadow] = rules.policies();
        let counter = |name: String| registry.counter(scope, name);
        let outcomes = |prefix: String, word: &str, policies: Vec<&Arc<str>>| Outcomes {
            allowed: counter(format!("{prefix}{word}allowed")),
            denied: counter(format!("{prefix}{word}denied")),
            policies: policies
                .into_iter()
                .filter(|_| rules.tracks_policies)
                .map(|policy| {
                    let of_policy = |outcome| counter(format!("{prefix}policy.{policy}.{word}{outcome}"));
                    (Arc::clone(policy), [of_policy("allowed"), of_policy("denied")])
                })
                .collect(),
        };
        Self {
            enforced: outcomes(format!("{prefix}{}", rules.prefix), "", enforced),
            shadow: outcomes(format!("{prefix}{}", rules.shadow_prefix), "shadow_", shadow),
            logged: counter(format!("{prefix}{}logged", rules.prefix)),
        }
    }

    /// Counts what the rules said, and tells it in the log of who debugs.
    pub(crate) fn count(&self, verdicts: &Verdicts) {
        for (outcomes, verdict, how) in
            [(&self.shadow, &verdicts.shadow, "shadow"), (&self.enforced, &verdicts.enforced, "enforced")]
        {
            let Some(verdict) = verdict else { continue };
            outcomes.count(verdict);
            let outcome = if verdict.allowed { "allowed" } else { "denied" };
            let policy = verdict.policy.as_deref().unwrap_or("none");
            tracing::debug!("{how} {outcome}, matched policy {policy}");
        }
        if verdicts.logged == Some(true) {
            self.logged.inc();
        }
    }
}

impl Outcomes {
    fn count(&self, verdict: &Verdict) {
        let [allowed, denied] = verdict
            .policy
            .as_ref()
            .and_then(|policy| self.policies.get(policy))
            .map_or([None, None], |[allowed, denied]| [Some(allowed), Some(denied)]);
        let (of_all, of_policy) = if verdict.allowed { (&self.allowed, allowed) } else { (&self.denied, denied) };
        of_all.inc();
        if let Some(counter) = of_policy {
            counter.inc();
        }
    }
}

/// What external authorizers said.
#[derive(Debug)]
pub(crate) struct AuthzStats {
    pub ok: Counter,
    pub denied: Counter,
    pub error: Counter,
    pub disabled: Counter,
    pub failure_mode_allowed: Counter,
    pub invalid: Counter,
}

impl AuthzStats {
    pub(crate) fn new(registry: &Registry, scope: &Scope, prefix: &str) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        let counter = |what| registry.counter(scope, format!("ext_authz.{prefix}{dot}{what}"));
        Self {
            ok: counter("ok"),
            denied: counter("denied"),
            error: counter("error"),
            disabled: counter("disabled"),
            failure_mode_allowed: counter("failure_mode_allowed"),
            invalid: counter("invalid"),
        }
    }
}

/// What external authorizers said of connections.
#[derive(Debug)]
pub(crate) struct ConnectionAuthzStats {
    pub total: Counter,
    pub ok: Counter,
    pub denied: Counter,
    pub error: Counter,
    pub disabled: Counter,
    pub failure_mode_allowed: Counter,
    pub cx_closed: Counter,
    /// Questions without an answer yet.
    pub active: Gauge,
}

impl ConnectionAuthzStats {
    pub(crate) fn new(registry: &Registry, prefix: &str) -> Self {
        let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
        let scope = Scope::Named(format!("ext_authz.{prefix}").into());
        let counter = |name| registry.counter(&scope, name);
        Self {
            total: counter("total"),
            ok: counter("ok"),
            denied: counter("denied"),
            error: counter("error"),
            disabled: counter("disabled"),
            failure_mode_allowed: counter("failure_mode_allowed"),
            cx_closed: counter("cx_closed"),
            active: registry.gauge(&scope, "active"),
        }
    }
}

/// What they said of requests to a cluster, by the name that each filter has for its counters.
#[derive(Debug)]
pub(crate) struct ClusterAuthzStats {
    registry: Registry,
    scope: Scope,
    /// As many as there are in the configuration.
    known: RefCell<Vec<(Arc<str>, Rc<AuthzStats>)>>,
}

impl ClusterAuthzStats {
    pub(crate) fn new(registry: &Registry, cluster: Arc<str>) -> Self {
        Self { registry: registry.clone(), scope: Scope::Cluster(cluster), known: RefCell::default() }
    }

    /// The numbers of a filter, which may have no name.
    pub(crate) fn of(&self, name: &Arc<str>) -> Rc<AuthzStats> {
        let mut known = self.known.borrow_mut();
        if let Some((_, stats)) = known.iter().find(|(other, _)| other == name) {
            return Rc::clone(stats);
        }
        let stats = Rc::new(AuthzStats::new(&self.registry, &self.scope, name));
        known.push((Arc::clone(name), Rc::clone(&stats)));
        stats
    }
}

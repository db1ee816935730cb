//! What is counted of rate limits, under Envoy's names.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::stats::{Counter, Registry, Scope};

/// Of limits that share their name.
#[derive(Debug)]
pub(crate) struct LimitStats {
    pub enabled: Counter,
    pub ok: Counter,
    pub rate_limited: Counter,
    pub enforced: Counter,
}

impl LimitStats {
    pub(crate) fn new(registry: &Registry, name: &Arc<str>) -> Self {
        let scope = Scope::LocalRateLimit(Arc::clone(name));
        let counter = |name| registry.counter(&scope, name);
        Self {
            enabled: counter("enabled"),
            ok: counter("ok"),
            rate_limited: counter("rate_limited"),
            enforced: counter("enforced"),
        }
    }
}

/// What services said of requests to a cluster, by the name that each limit has for its counters.
#[derive(Debug)]
pub(crate) struct LimitServiceStats {
    registry: Registry,
    scope: Scope,
    /// As many as there are in the configuration.
    known: RefCell<Vec<(Arc<str>, Rc<Answers>)>>,
}

#[derive(Debug)]
pub(crate) struct Answers {
    pub ok: Counter,
    pub over_limit: Counter,
    pub error: Counter,
    pub failure_mode_allowed: Counter,
}

impl LimitServiceStats {
    pub(crate) fn new(registry: &Registry, cluster: Arc<str>) -> Self {
        Self { registry: registry.clone(), scope: Scope::Cluster(cluster), known: RefCell::default() }
    }

    /// The numbers of a limit, which may have no name.
    pub(crate) fn of(&self, name: &Arc<str>) -> Rc<Answers> {
        let mut known = self.known.borrow_mut();
        if let Some((_, answers)) = known.iter().find(|(other, _)| other == name) {
            return Rc::clone(answers);
        }
        let dot = if name.is_empty() { "" } else { "." };
        let counter = |what| self.registry.counter(&self.scope, format!("ratelimit.{name}{dot}{what}"));
        let answers = Rc::new(Answers {
            ok: counter("ok"),
            over_limit: counter("over_limit"),
            error: counter("error"),
            failure_mode_allowed: counter("failure_mode_allowed"),
        });
        known.push((Arc::clone(name), Rc::clone(&answers)));
        answers
    }
}

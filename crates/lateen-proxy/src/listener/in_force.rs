//! What an open connection would meet if it came now. A connection outlives the filter chain that took it, and what the chain
//! in its place forbids must not go on for that: a request is served by the chain that is in force when it begins
//! (`http::connection`), and what is under way ends where the rules of the chain in force deny it. Until its own chain is
//! replaced, that costs a connection a look at one number.

use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::config::listener::FilterChain;
use lateen_engine::filters::http::rbac::denial;
use lateen_engine::filters::network::NetworkFilter;
use lateen_engine::filters::rbac::Verdict;
use lateen_engine::flags::LocalReply;

use super::connection::ConnectionInfo;
use super::drain::{Drain, Phase};
use super::{Accepting, Origin};
use crate::worker::Worker;

/// Asks the configuration in force about one connection.
#[derive(Clone)]
pub(crate) struct InForce {
    pub(super) context: Rc<Accepting>,
    pub(super) origin: Rc<Origin>,
    pub(super) info: Rc<ConnectionInfo>,
}

/// What the listeners in force have for a connection.
pub(crate) struct Standing {
    /// None if no chain would take it: its listener or its part of it is gone, which by itself says nothing against whom it
    /// served before.
    pub(crate) chain: Option<Arc<FilterChain>>,
    pub(crate) rejection: Option<Rejection>,
    /// Asked to drain when this is to be asked again; at once while everything ends.
    pub(crate) until: Drain,
}

/// Why a connection would not be let in.
#[derive(Clone, Debug)]
pub(crate) enum Rejection {
    /// Network filters deny it.
    Rules(Verdict),
    /// Only who proves by TLS who he is is served, and this client has not.
    Unproven,
}

impl Rejection {
    /// As an answer to its requests.
    pub(crate) fn reply(&self) -> LocalReply {
        match self {
            Self::Rules(verdict) => denial(verdict),
            Self::Unproven => {
                let mut reply = denial(&Verdict { allowed: false, policy: None });
                reply.details = "peer_not_authenticated".into();
                reply
            }
        }
    }
}

impl InForce {
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.context.worker
    }

    pub(crate) fn info(&self) -> &Rc<ConnectionInfo> {
        &self.info
    }

    /// Looks what is in force now. Authorizers are not asked again.
    pub(crate) fn look(&self) -> Standing {
        let snapshot = self.worker().snapshot();
        let listener = self.origin.listener(&snapshot);
        match listener.as_deref().and_then(|listener| self.origin.chain(listener)) {
            Some(chain) => {
                Standing { rejection: self.rejection(&chain), until: self.context.drain(&chain), chain: Some(chain) }
            }
            None => {
                // Of a listener that is there, whether it would have taken the same client by TLS.
                let only_by_tls = listener.is_some_and(|listener| {
                    !self.origin.seen_tls
                        && self.origin.chain_by_tls(&listener).is_some_and(|chain| chain.tls.is_some())
                });
                let rejection = only_by_tls.then_some(Rejection::Unproven);
                Standing { chain: None, rejection, until: self.context.changed.borrow().subscribe() }
            }
        }
    }

    fn rejection(&self, chain: &FilterChain) -> Option<Rejection> {
        if chain.tls.as_ref().is_some_and(|tls| tls.require_client_certificate) && self.info.peer().is_none() {
            return Some(Rejection::Unproven);
        }
        chain.network.iter().find_map(|filter| {
            let NetworkFilter::Rbac(rbac) = filter else { return None };
            let verdicts = rbac.rules.decide(&self.info.subject());
            let denied = verdicts.enforced.clone().filter(|verdict| !verdict.allowed)?;
            self.worker().rbac(rbac).count(&verdicts);
            Some(Rejection::Rules(denied))
        })
    }

    /// Ready when a connection that was let in by the chain of `until` would not be let in any more.
    pub(super) async fn revoked(self, mut until: Drain) {
        loop {
            until.reached(Phase::Draining).await;
            let standing = self.look();
            if standing.rejection.is_some() {
                return;
            }
            until = standing.until;
            if until.phase() != Phase::Open {
                // Everything ends, under whatever rules there are.
                std::future::pending::<()>().await;
            }
        }
    }
}

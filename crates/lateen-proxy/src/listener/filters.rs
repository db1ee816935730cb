//! Network filters of a connection, before anything of it is passed on.

use std::rc::Rc;

use lateen_engine::config::listener::FilterChain;
use lateen_engine::filters::ext_authz::CHECK;
use lateen_engine::filters::network::{self, NetworkExtAuthz, NetworkFilter};

use super::connection::ConnectionInfo;
use super::drain::{Drain, Phase};
use super::{Accepting, Origin};
use crate::telemetry::access_stats::ConnectionAuthzStats;
use crate::upstream::call::call;
use crate::worker::Worker;

/// Whether the chain's filters let the connection pass; what they say of it stays with it.
pub(super) async fn pass(chain: &FilterChain, info: &mut ConnectionInfo, worker: &Rc<Worker>) -> bool {
    for filter in &chain.network {
        let passes = match filter {
            NetworkFilter::Rbac(rbac) => {
                let verdicts = rbac.rules.decide(&info.subject());
                worker.rbac(rbac).count(&verdicts);
                rbac.rules.tell(&verdicts, network::RBAC, &mut info.metadata);
                verdicts.allows()
            }
            NetworkFilter::ExtAuthz(authz) => {
                let stats = worker.connection_authz(authz);
                Box::pin(ask(authz, &stats, info, worker)).await
            }
        };
        if !passes {
            return false;
        }
    }
    true
}

/// Ready when the policies in force deny a connection that was let through before: those of the chain that would take it
/// now. Authorizers are asked once. Until its own chain is replaced, this is a look at one number.
pub(super) async fn revoked(
    context: &Accepting,
    origin: &Origin,
    info: Rc<ConnectionInfo>,
    fingerprint: u64,
    mut drain: Drain,
) {
    drain.reached(Phase::Draining).await;
    loop {
        let snapshot = context.worker.snapshot();
        let chain = origin.listener(&snapshot).and_then(|listener| origin.chain(&listener));
        if chain.is_some_and(|chain| chain.fingerprint != fingerprint && denies(&chain, &info, &context.worker)) {
            return;
        }
        drop(snapshot);
        context.replaced.notified().await;
    }
}

fn denies(chain: &FilterChain, info: &ConnectionInfo, worker: &Worker) -> bool {
    chain.network.iter().any(|filter| {
        let NetworkFilter::Rbac(rbac) = filter else { return false };
        let verdicts = rbac.rules.decide(&info.subject());
        if !verdicts.allows() {
            worker.rbac(rbac).count(&verdicts);
        }
        !verdicts.allows()
    })
}

async fn ask(
    authz: &NetworkExtAuthz,
    stats: &ConnectionAuthzStats,
    info: &mut ConnectionInfo,
    worker: &Rc<Worker>,
) -> bool {
    if !authz.is_enabled(&info.metadata) {
        stats.disabled.inc();
        return true;
    }
    stats.total.inc();
    let _active = stats.active.hold();
    let question = authz.question(&info.ends(), &info.metadata);
    let answer = call(worker, &worker.snapshot(), &authz.service, CHECK, &question).await;
    let word = match answer.map(|answer| authz.answer(&answer)) {
        Ok(Ok(word)) => Some(word),
        Ok(Err(_)) => None,
        Err(error) => {
            tracing::debug!(cluster = %authz.service.cluster, %error, "the external authorizer does not answer");
            None
        }
    };
    let Some((allowed, said)) = word else {
        stats.error.inc();
        if authz.failure_mode_allow {
            stats.failure_mode_allowed.inc();
        } else {
            stats.cx_closed.inc();
        }
        return authz.failure_mode_allow;
    };
    if !said.is_empty() {
        info.metadata.merge(network::EXT_AUTHZ, said);
    }
    if allowed {
        stats.ok.inc();
    } else {
        stats.denied.inc();
        stats.cx_closed.inc();
    }
    allowed
}

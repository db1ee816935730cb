//! Network filters of a connection, before anything of it is passed on.

use std::rc::Rc;

use lateen_engine::config::dns_cache::NamedHost;
use lateen_engine::config::listener::FilterChain;
use lateen_engine::filters::ext_authz::CHECK;
use lateen_engine::filters::http::dynamic_forward_proxy::Unresolved;
use lateen_engine::filters::network::{self, NetworkExtAuthz, NetworkFilter, SniDynamicForwardProxy};

use super::connection::ConnectionInfo;
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
            NetworkFilter::SniDynamicForwardProxy(proxy) => Box::pin(resolve(proxy, info, worker)).await,
        };
        if !passes {
            return false;
        }
    }
    true
}

/// Resolves the server name that the client asks for. Without one, or with one that has no address, no host will be found.
async fn resolve(proxy: &SniDynamicForwardProxy, info: &mut ConnectionInfo, worker: &Rc<Worker>) -> bool {
    let Some(host) = info.sni.as_deref().and_then(|name| NamedHost::parse(name, proxy.port)) else { return true };
    info.dynamic_port = Some(proxy.port);
    match worker.shared.dns_caches.resolve(&proxy.cache, &host, &worker.shared.stats).await {
        Ok(()) | Err(Unresolved::Failed(_) | Unresolved::NoHost) => true,
        Err(Unresolved::HostOverflow | Unresolved::PendingOverflow) => false,
    }
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

//! Resolving the host that a request names, for clusters that go there (`envoy.filters.http.dynamic_forward_proxy`).

use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::dynamic_forward_proxy::{DynamicForwardProxy, Unresolved};
use lateen_engine::flags::LocalReply;
use lateen_engine::route::{Action, Route};

use super::request::Exchange;

impl Exchange<'_> {
    /// Waits for the address of the request's host, where its route leads to a cluster that needs it; the answer if there is
    /// none.
    pub(super) async fn resolve_host(
        &mut self,
        proxy: &DynamicForwardProxy,
        said: Option<&Override>,
        route: Option<&Route>,
    ) -> Option<Box<LocalReply>> {
        if matches!(said, Some(Override::Disabled)) {
            return None;
        }
        let Action::Forward(forward) = &route?.action else { return None };
        let chosen = forward.choose(&self.head, self.random)?;
        let cluster = self.snapshot.cluster(&chosen.cluster)?.clone();
        cluster.dns_cache()?;
        if let Some(Override::DynamicForwardProxy(Some(rewrite))) = said
            && let Some(host) = rewrite.of(&self.head)
        {
            self.head.authority = host;
            self.head_changed();
        }
        let Some(host) = cluster.named_host(self.head.host(), None) else {
            return Some(Box::new(Unresolved::NoHost.reply()));
        };
        let shared = &self.context.worker.shared;
        let resolved = shared.dns_caches.resolve(&proxy.cache, &host, &shared.stats).await;
        resolved.err().map(|unresolved| Box::new(unresolved.reply()))
    }
}

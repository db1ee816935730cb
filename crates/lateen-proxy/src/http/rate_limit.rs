//! Local rate limits of a request: asked, counted, told with the answer.

use std::sync::Arc;
use std::time::Instant;

use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::local_rate_limit::{LocalRateLimit, Outcome};
use lateen_engine::flags::LocalReply;
use lateen_engine::message::Headers;
use lateen_engine::rate_limit::descriptor::Described;
use lateen_engine::route::{Action, Route};

use super::forward::request_value;
use super::request::Exchange;

impl Exchange<'_> {
    /// The answer to a request that is over the limit: the filter's own, or what its route says in its place.
    pub(super) fn limit_rate(
        &mut self,
        own: &Arc<LocalRateLimit>,
        said: Option<&Override>,
        route: Option<&Route>,
    ) -> Option<Box<LocalReply>> {
        let limit = match said {
            Some(Override::Disabled) => return None,
            Some(Override::LocalRateLimit(of_route)) => of_route,
            _ => own,
        };
        let chosen = route.and_then(|route| match &route.action {
            Action::Forward(action) => action.choose(&self.head, self.random),
            _ => None,
        });
        let cluster = chosen.as_ref().map(|chosen| &*chosen.cluster);
        let request = Described { head: &self.head, remote: self.remote, cluster };
        let said = route.map(|route| &route.rate_limits);
        let decision = limit.decide(&request, said, Instant::now(), self.context.worker.random())?;
        let stats = self.context.worker.limit(limit);
        stats.enabled.inc();
        self.quota = decision.quota.or(self.quota);
        match decision.outcome {
            Outcome::Allowed => stats.ok.inc(),
            Outcome::NotEnforced => {
                stats.rate_limited.inc();
                // Operators read the request as it came.
                let (info, original) = (&self.info, self.head.headers.clone());
                let value = |operator: &_, line: &mut Vec<u8>| request_value(operator, info, &original, line);
                limit.request_headers.apply(&mut self.head.headers, Some(&mut self.head.authority), value);
            }
            Outcome::Refused(reply) => {
                stats.rate_limited.inc();
                stats.enforced.inc();
                return Some(Box::new(self.with_headers(*reply, &limit.response_headers)));
            }
        }
        None
    }

    /// Tells what is left, if a limit wants that.
    pub(super) fn tell_quota(&self, headers: &mut Headers) {
        for (name, value) in self.quota.iter().flat_map(|quota| quota.headers()) {
            headers.append(name, value);
        }
    }
}

//! Rate limits of a request, the proxy's own and those that a service counts: asked, counted, told with the answer.

use std::sync::Arc;
use std::time::Instant;

use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::local_rate_limit::{LocalRateLimit, Outcome};
use lateen_engine::filters::http::rate_limit::{self, RateLimit};
use lateen_engine::flags::LocalReply;
use lateen_engine::message::Headers;
use lateen_engine::metadata::DynamicMetadata;
use lateen_engine::rate_limit::descriptor::Described;
use lateen_engine::route::format::Operator;
use lateen_engine::route::{Action, Route};

use super::forward::request_value;
use super::request::Exchange;
use crate::upstream::call::{CallError, call};

const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

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
        let value = |operator: &_, line: &mut Vec<u8>| request_value(operator, &self.info, &self.head.headers, line);
        let request = self.described(route, cluster, &value);
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

    /// The answer to a request that the service says is over a limit, or about which it says nothing where that is to
    /// deny.
    pub(super) async fn ask_limit(
        &mut self,
        limit: &RateLimit,
        said: Option<&Override>,
        route: Option<&Route>,
    ) -> Option<Box<LocalReply>> {
        let of_route = match said {
            Some(Override::Disabled) => return None,
            Some(Override::RateLimit(of_route)) => Some(&**of_route),
            _ => None,
        };
        // As in Envoy: what goes to no cluster is not asked about.
        let (service, route) = (limit.service.as_ref()?, route?);
        let Action::Forward(action) = &route.action else { return None };
        let chosen = action.choose(&self.head, self.random)?;
        let snapshot = Arc::clone(&self.snapshot);
        let cluster = snapshot.cluster(&chosen.cluster)?;
        let worker = &self.context.worker;
        let value = |operator: &_, line: &mut Vec<u8>| request_value(operator, &self.info, &self.head.headers, line);
        let request = self.described(Some(route), Some(&chosen.cluster), &value);
        let question = limit.question(&request, Some(&route.rate_limits), of_route, worker.random())?;
        let state = worker.cluster(cluster);
        let stats = state.limits.of(&limit.stat_prefix);
        let answer = call(worker, &snapshot, service, SHOULD_RATE_LIMIT, &question).await;
        let decided = answer.and_then(|answer| {
            let not_understood = |_| CallError::NotRead("the answer cannot be decoded");
            limit.decide(&answer, worker.random()).map_err(not_understood)
        });
        let decision = match decided {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(cluster = %service.cluster, %error, "the rate limit service does not answer");
                stats.error.inc();
                let denied = limit.failed(worker.random());
                if denied.is_none() {
                    stats.failure_mode_allowed.inc();
                }
                return denied.map(Box::new);
            }
        };
        self.told.extend(decision.response_headers);
        match decision.outcome {
            rate_limit::Outcome::Allowed => stats.ok.inc(),
            rate_limit::Outcome::NotEnforced => stats.over_limit.inc(),
            rate_limit::Outcome::Refused(reply) => {
                stats.over_limit.inc();
                state.stats.status(reply.status.as_u16());
                return Some(Box::new(self.with_headers(*reply, &limit.response_headers)));
            }
        }
        for (name, value) in decision.request_headers {
            self.head.headers.append(name, value);
        }
        None
    }

    fn described<'d>(
        &'d self,
        route: Option<&'d Route>,
        cluster: Option<&'d str>,
        value: &'d dyn Fn(&Operator, &mut Vec<u8>),
    ) -> Described<'d> {
        Described {
            head: &self.head,
            remote: self.remote,
            cluster,
            metadata: &self.info.metadata,
            of_route: match route {
                Some(route) => &route.metadata,
                None => DynamicMetadata::none(),
            },
            own_cluster: &self.context.worker.shared.node.cluster,
            value,
        }
    }

    /// Tells what limits have to say of the request.
    pub(super) fn tell_limits(&self, headers: &mut Headers) {
        for (name, value) in &self.told {
            headers.append(name.clone(), value.clone());
        }

        for (name, value) in self.quota.iter().flat_map(|quota| quota.headers()) {
            headers.append(name, value);
        }
    }
}

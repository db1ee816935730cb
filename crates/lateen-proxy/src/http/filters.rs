//! A request among the filters of its chain, in their order: phase 4 of its life.

use std::rc::Rc;
use std::sync::Arc;

use lateen_engine::filters::http::grpc_stats::GrpcStats;
use lateen_engine::filters::http::rbac::{self, NAME as RBAC};
use lateen_engine::filters::http::{HttpFilter, Kind, Override, PerFilter, Step};
use lateen_engine::filters::rbac::{RuleSets, Subject};
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::RequestHead;
use lateen_engine::route::{Action, Route};

use super::ext_authz::{Authorized, Pending};
use super::jwt::Checked;
use super::request::{Cors, Exchange};
use super::state::FilterStats;
use crate::telemetry::grpc_stats::MethodStats;

/// What became of a request among the filters.
pub(super) enum Filtered {
    Passed,
    Answered(Box<LocalReply>),
    /// Nobody waits for the answer any more.
    Gone,
}

impl Exchange<'_> {
    pub(super) async fn filter(
        &mut self,
        filters: &[HttpFilter],
        route: &mut Option<Arc<Route>>,
        pending: &mut Pending<'_>,
    ) -> Filtered {
        let mut places = 0..filters.len();
        // Once for each route: a filter that changes the request may have another one found.
        'route: loop {
            let found = route.clone();
            let route_found = found.as_deref();
            let forwards = route_found.is_some_and(|route| matches!(route.action, Action::Forward(_)));
            let per_filter = route_found.map(|route| said_by(route, &self.head, self.random));
            for place in &mut places {
                let filter = &filters[place];
                let said = per_filter.and_then(|said| said.get(&filter.name));
                // As in Envoy, rules about other origins are for what goes to a cluster.
                let said = said.filter(|said| forwards || !matches!(said, Override::Cors(_)));
                match &filter.kind {
                    // Few ask, and the others need no room for it.
                    Kind::ExtAuthz(authz) => {
                        let asking = Box::pin(self.authorize(authz, place, said, route_found, pending));
                        match asking.await {
                            Authorized::Passed => {}
                            Authorized::Changed => match self.find_route().await {
                                Ok(found) => {
                                    *route = found;
                                    continue 'route;
                                }
                                Err(answer) => return Filtered::Answered(answer),
                            },
                            Authorized::Answered(answer) => return Filtered::Answered(answer),
                            Authorized::Gone => return Filtered::Gone,
                        }
                    }
                    Kind::JwtAuthn(jwt) => match Box::pin(self.check_tokens(jwt, said)).await {
                        Checked::Passed { clear_route: false } => {}
                        Checked::Passed { clear_route: true } => match self.find_route().await {
                            Ok(found) => {
                                *route = found;
                                continue 'route;
                            }
                            Err(answer) => return Filtered::Answered(answer),
                        },
                        Checked::Refused(answer) => return Filtered::Answered(answer),
                    },
                    Kind::RateLimit(limit) => {
                        if let Some(answer) = Box::pin(self.ask_limit(limit, said, route_found)).await {
                            return Filtered::Answered(answer);
                        }
                    }
                    Kind::DynamicForwardProxy(proxy) => {
                        if let Some(answer) = Box::pin(self.resolve_host(proxy, said, route_found)).await {
                            return Filtered::Answered(answer);
                        }
                    }
                    _ => {
                        if let Some(answer) = self.pass(filter, place, said, route_found) {
                            return Filtered::Answered(answer);
                        }
                    }
                }
                match filter.on_request(&self.head, said, self.context.worker.random()) {
                    Step::Continue if matches!(filter.kind, Kind::Cors) => self.note_cors(said),
                    Step::Continue => {}
                    Step::Reply(answer) => return Filtered::Answered(answer),
                    Step::Delay(time, then) => {
                        self.info.flag(ResponseFlag::DelayInjected);
                        tokio::time::sleep(time).await;
                        if let Some(answer) = then {
                            return Filtered::Answered(answer);
                        }
                    }
                }
            }
            return Filtered::Passed;
        }
    }

    /// A filter that needs to wait for nobody; its answer, if it has one.
    fn pass(
        &mut self,
        filter: &HttpFilter,
        place: usize,
        said: Option<&Override>,
        route: Option<&Route>,
    ) -> Option<Box<LocalReply>> {
        match &filter.kind {
            Kind::Router(options) => self.router = *options,
            Kind::Rbac(_) => return self.check_access(filter.kind.access_rules(said)?, place),
            Kind::GrpcStats(stats) if self.grpc && !matches!(said, Some(Override::Disabled)) => {
                self.grpc_stats = route.and_then(|route| self.find_grpc_stats(stats, route));
            }
            Kind::LocalRateLimit(limit) => return self.limit_rate(limit, said, route),
            _ => {}
        }
        None
    }

    fn note_cors(&mut self, said: Option<&Override>) {
        if let Some(Override::Cors(policy)) = said
            && let Some(origin) = self.head.headers.get(&http::header::ORIGIN)
        {
            self.cors = Some(Cors { policy: Arc::clone(policy), origin: origin.clone() });
        }
    }

    /// Where this call is counted, if it goes to a cluster and its path is that of a call.
    fn find_grpc_stats(&self, filter: &GrpcStats, route: &Route) -> Option<Rc<MethodStats>> {
        let Action::Forward(action) = &route.action else { return None };
        let counted = filter.counted(self.head.target())?;
        let cluster = self.snapshot.cluster(&action.choose(&self.head, self.random)?.cluster)?;
        Some(self.context.worker.cluster(cluster).grpc.of(&counted))
    }

    /// The answer to a request that the rules deny.
    fn check_access(&mut self, rules: &RuleSets, place: usize) -> Option<Box<LocalReply>> {
        let verdicts = rules.decide(&self.subject(&self.head));
        if let Some(FilterStats::Rbac(stats)) = self.context.state.filters.get(place) {
            stats.count(&verdicts);
        }
        rules.tell(&verdicts, RBAC, &mut self.info.metadata);
        let denied = verdicts.enforced.filter(|verdict| !verdict.allowed)?;
        Some(Box::new(rbac::denial(&denied)))
    }

    /// What rules look at, of the request with this head.
    pub(super) fn subject<'a>(&'a self, head: &'a RequestHead) -> Subject<'a> {
        let connection = &self.context.connection;
        Subject {
            head: Some(head),
            destination: connection.local,
            direct_remote: connection.direct_remote.ip(),
            remote: self.remote,
            peer: connection.peer(),
            sni: connection.sni.as_deref(),
            metadata: &self.info.metadata,
        }
    }
}

/// What a route says to filters: the part of it that the request goes to, or the route itself.
pub(super) fn said_by<'a>(route: &'a Route, head: &RequestHead, random: u64) -> &'a PerFilter {
    let of_part = match &route.action {
        Action::Forward(action) => action.per_filter(head, random),
        _ => None,
    };
    of_part.unwrap_or(&route.per_filter)
}

//! Host after host, while the retry policy says so.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use lateen_engine::balance::outlier::{Outcome, status_of_grpc};
use lateen_engine::config::cluster::ServerNames;
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::{RequestHead, ResponseHead};
use lateen_engine::route::Route;
use lateen_engine::route::action::{Forward, HostRewrite};
use lateen_engine::route::retry_policy::RetryPolicy;

use super::interim::Interims;
use super::request::Exchange;
use crate::cluster::{ClusterState, Host, Tried, Wanted};
use crate::telemetry::failure::{Failure, FailureKind};
use crate::upstream::attempt::{Answer, Outgoing, attempt};
use crate::upstream::replay::Replay;
use lateen_engine::headers::{ATTEMPT_COUNT, ORIGINAL_HOST, OVERLOADED, number};

/// How it ended without an answer from upstream.
pub(super) enum Ended {
    Reply(LocalReply),
    /// The client is gone.
    Gone,
}

pub(super) struct Attempts<'e, 'x, 'r> {
    pub(super) exchange: &'e mut Exchange<'x>,
    pub(super) route: &'r Route,
    pub(super) action: &'r Forward,
    pub(super) state: &'r Rc<ClusterState>,
    pub(super) policy: Option<&'r RetryPolicy>,
    pub(super) head: &'r mut RequestHead,
    pub(super) body: &'r Rc<Replay>,
    pub(super) length: Option<u64>,
    pub(super) upgrade: Option<&'r str>,
    pub(super) raw: Option<&'r [u8]>,
    pub(super) interims: &'r Interims,
    pub(super) names: Option<&'r ServerNames>,
    /// Balances requests that are alike to one host.
    pub(super) hash: Option<u64>,
    /// `x-envoy-attempt-count` goes up.
    pub(super) tells_attempts: bool,
    /// Whom the request is with.
    pub(super) host: Option<Rc<Host>>,
}

impl Attempts<'_, '_, '_> {
    /// Tries until there is an answer, or no other try is left.
    pub(super) async fn attempts(&mut self) -> Result<Answer, Ended> {
        let avoiding = self.policy.filter(|policy| policy.avoid_previous_hosts);
        let mut tried = Tried {
            hosts: Vec::new(),
            attempts: avoiding.map_or(0, |policy| policy.host_attempts),
            priorities_every: self.policy.and_then(|policy| policy.previous_priorities),
        };
        let mut retry = 0;
        let mut _slot = None;
        loop {
            let host = self.pick(&tried).await?;
            self.host = Some(Rc::clone(&host));
            let result = self.once(&host).await?;
            self.host = None;
            let again = match (&result, self.policy) {
                (_, None) => false,
                (Ok(answer), Some(policy)) => policy.retries_response(&answer.head),
                (Err(failure), Some(policy)) => {
                    failure.attempt().is_some_and(|failure| policy.retries_failure(failure))
                }
            };
            self.note(&host, &result);
            let allowed = again && self.may_retry(retry);
            if allowed || result.is_err() {
                self.exchange.end_attempt(self.head, result.as_ref());
            }
            match (allowed, result) {
                (true, _) => {}
                (false, Ok(answer)) => {
                    if retry > 0 && !answer.head.status.is_server_error() {
                        self.state.stats.rq_retry_success.inc();
                    }
                    return Ok(answer);
                }
                (false, Err(Failure { kind: FailureKind::Downstream, .. })) => return Err(Ended::Gone),
                (false, Err(failure)) => {
                    if failure.kind == FailureKind::DownstreamProtocol {
                        let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error");
                        return Err(Ended::Reply(reply.flag(ResponseFlag::DownstreamProtocolError)));
                    }
                    self.exchange.info.upstream_failure = failure.transport.clone();
                    let tells = !self.exchange.router.suppress_envoy_headers;
                    return Err(Ended::Reply(failed(&failure, retry, tells).flag(failure.flag())));
                }
            }
            retry += 1;
            self.state.stats.rq_retry.inc();
            _slot = Some(self.state.hold_retry());
            tried.hosts.push(host.endpoint.address.clone());
            let wait = self
                .policy
                .map_or(Duration::ZERO, |policy| policy.back_off(retry, self.exchange.context.worker.random()));
            tokio::time::sleep(wait).await;
        }
    }

    async fn pick(&mut self, tried: &Tried) -> Result<Rc<Host>, Ended> {
        let context = self.exchange.context;
        let wanted = Wanted { original: context.connection.local, name: Some(self.head.host()), port: None };
        let host = self.state.choose(&context.worker, self.hash, &wanted, tried).await;
        host.ok_or_else(|| {
            self.state.stats.cx_none_healthy.inc();
            self.exchange.info.attempts += 1;
            let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "no_healthy_upstream");
            Ended::Reply(reply.flag(ResponseFlag::NoHealthyUpstream))
        })
    }

    /// Whether policy, body and breakers leave room for one more try.
    fn may_retry(&mut self, retry: u32) -> bool {
        let most = self.policy.map_or(0, |policy| policy.num_retries);
        if retry >= most {
            if most > 0 {
                self.state.stats.rq_retry_limit_exceeded.inc();
                self.exchange.info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
            }
            return false;
        }
        // As in Envoy, an upstream that has said something interim keeps the request.
        if self.interims.count() > 0 || !self.body.is_replayable() {
            return false;
        }
        if !self.state.may_retry(self.action.high_priority) {
            self.state.stats.rq_retry_overflow.inc();
            return false;
        }
        true
    }

    /// Asks one host, for as long as rules let the request go on.
    async fn once(&mut self, host: &Rc<Host>) -> Result<Result<Answer, Failure>, Ended> {
        let context = self.exchange.context;
        self.exchange.info.attempts += 1;
        self.exchange.info.upstream_host = Some(Rc::clone(&host.name));
        self.exchange.info.upstream_zone = Some(Rc::clone(&host.zone));
        self.exchange.info.upstream_endpoint = Some(Arc::clone(&host.endpoint));
        self.state.stats.rq_total.inc();
        let _active = host.hold();
        let _gauge = self.state.stats.rq_active.hold();
        if matches!(self.action.host, HostRewrite::Auto) {
            let name: &str = if host.endpoint.hostname.is_empty() { &host.name } else { &host.endpoint.hostname };
            let before = std::mem::replace(&mut self.head.authority, Bytes::copy_from_slice(name.as_bytes()));
            // Of a second attempt, what the client wrote is noted already.
            if self.exchange.info.attempts == 1
                && !self.exchange.router.suppress_envoy_headers
                && let Ok(before) = HeaderValue::from_bytes(&before)
            {
                self.head.headers.set(ORIGINAL_HOST, before);
            }
        }
        if self.tells_attempts {
            self.head.headers.set(ATTEMPT_COUNT, number(self.exchange.info.attempts.into()));
        }
        self.exchange.begin_attempt(self.head);
        let spoken = Cell::new(None);
        let outgoing = Outgoing {
            head: self.head,
            body: Rc::clone(self.body),
            length: self.length,
            upgrade: self.upgrade,
            raw: self.raw,
            interims: self.interims,
            names: self.names,
            spoken: &spoken,
        };
        let began = self.state.clock();
        let mut trying = pin!(async {
            match self.policy.and_then(|policy| policy.per_try_timeout) {
                None => attempt(&context.worker, self.state, host, &outgoing).await,
                Some(limit) => {
                    let trying = Box::pin(attempt(&context.worker, self.state, host, &outgoing));
                    tokio::time::timeout(limit, trying).await.unwrap_or_else(|_| {
                        self.state.stats.rq_per_try_timeout.inc();
                        Err(Failure::new(FailureKind::PerTryTimeout))
                    })
                }
            }
        });
        let going_up = Some(&self.head.headers);
        let result = self
            .exchange
            .unless_revoked(self.route, going_up, trying.as_mut())
            .await
            .map_err(|answer| Ended::Reply(*answer))?;
        self.exchange.info.upstream_protocol = spoken.get();
        let is_theirs = !result.as_ref().is_err_and(Failure::is_downstream);
        if let Some(began) = began.filter(|_| is_theirs) {
            host.answered(began, result.as_ref().map_or(true, |answer| answer.head.status.is_server_error()));
        }
        if let Ok(answer) = &result {
            self.exchange.info.upstream_local = answer.ends.local;
            self.exchange.info.upstream_tls.clone_from(&answer.ends.tls);
        }
        Ok(result)
    }

    fn note(&self, host: &Host, result: &Result<Answer, Failure>) {
        let worker = &self.exchange.context.worker;
        match result {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                self.state.stats.status(status);
                let errors = &self.state.config().errors;
                // A gRPC status in the head counts in place of the HTTP status; one in trailers does not (Envoy).
                let counted = match (errors, grpc_status(self.head, &answer.head)) {
                    (Some(errors), _) => errors.status(&answer.head),
                    (None, Some(grpc)) => status_of_grpc(grpc),
                    (None, None) => status,
                };
                self.state.note(worker, host, Outcome::Connected);
                self.state.note(worker, host, Outcome::Status(counted));
            }
            Err(failure) if failure.is_downstream() => {}
            Err(failure) => {
                if failure.is_after_connecting() {
                    self.state.note(worker, host, Outcome::Connected);
                }
                self.state.note(worker, host, failure.outcome());
            }
        }
    }

    /// The time for the whole answer is over: the host that was asked last has not kept it.
    pub(super) fn note_timeout(&self) {
        if let Some(host) = &self.host {
            self.state.note(&self.exchange.context.worker, host, Outcome::TimedOut);
        }
    }
}

/// The gRPC status of an answer's head, to a gRPC request.
fn grpc_status(request: &RequestHead, answer: &ResponseHead) -> Option<u32> {
    if !request.is_grpc() {
        return None;
    }
    answer.headers.get(&HeaderName::from_static("grpc-status"))?.to_str().ok()?.parse().ok()
}

/// A failure as an answer; `tells`: with Envoy's own headers.
pub(super) fn failed(failure: &Failure, retries: u32, tells: bool) -> LocalReply {
    let mut reply = LocalReply::new(failure.status(), failure.body(retries), failure.details());
    if tells && failure.kind == FailureKind::Overflow {
        reply.headers.push((OVERLOADED, HeaderValue::from_static("true")));
    }
    reply
}

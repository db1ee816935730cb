//! A request that a service decides about: asked, with the beginning of its body where the service wants that, counted, and
//! changed as the service says.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use lateen_engine::filters::ext_authz::CHECK;
use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::ext_authz::{self, Answer, Asked, BodySettings, Content, ExtAuthz, Limits, Service};
use lateen_engine::flags::{LocalReply, ResponseFlag};
use lateen_engine::message::RequestHead;
use lateen_engine::metadata::Fields;
use lateen_engine::route::{Action, Route};

use super::body::{Begun, Body, BodyError, Frame, Reader};
use super::forward::request_value;
use super::interim::{self, Interims};
use super::request::Exchange;
use super::respond::Responder;
use super::state::FilterStats;
use super::watch::poll_left;
use crate::cluster::ClusterState;
use crate::telemetry::access_stats::AuthzStats;
use crate::upstream::call::{CallError, call, fetch};

/// What is left of a request while filters look at its head.
pub(super) struct Pending<'a> {
    pub(super) body: &'a mut Body,
    /// The connection's reader (HTTP/1.1), which sees the client leave.
    pub(super) reader: Option<&'a RefCell<Reader>>,
    pub(super) responder: &'a mut Responder,
    pub(super) is_upgrade: bool,
}

/// What becomes of a request.
pub(super) enum Authorized {
    Passed,
    /// It passes, and was changed such that its route must be found anew.
    Changed,
    Answered(Box<LocalReply>),
    /// Nobody waits for it any more.
    Gone,
}

/// The word of the service, and what it wants said to filters behind.
type Word = Result<(Answer, Fields), CallError>;

impl Exchange<'_> {
    pub(super) async fn authorize(
        &mut self,
        filter: &ExtAuthz,
        place: usize,
        said: Option<&Override>,
        route: Option<&Route>,
        pending: &mut Pending<'_>,
    ) -> Authorized {
        let of_route = match said {
            Some(Override::Disabled) => return Authorized::Passed,
            Some(Override::ExtAuthz(of_route)) if of_route.disabled => return Authorized::Passed,
            Some(Override::ExtAuthz(of_route)) => Some(&**of_route),
            _ => None,
        };
        // As in Envoy: what has no route ends anyway.
        let Some(route) = route else { return Authorized::Passed };
        let counters = self.counters(filter, place, route);
        if !filter.is_enabled(&self.info.metadata, self.context.worker.random()) {
            counters.of_filter(|stats| stats.disabled.inc());
            return filter.when_disabled().map_or(Authorized::Passed, |reply| Authorized::Answered(Box::new(reply)));
        }
        let settings = filter.body(of_route).filter(|_| !pending.body.is_end() && !pending.is_upgrade);
        let body = match settings {
            None => None,
            Some(settings) => match self.read_body(settings, pending).await {
                Ok(content) => Some(content),
                Err(ended) => return ended,
            },
        };
        let asking = self.ask_authorizer(filter, filter.service(of_route), of_route, body.as_ref());
        let Some(word) = while_wanted(pending, asking).await else { return Authorized::Gone };
        self.take_word(filter, word, &counters)
    }

    fn counters(&self, filter: &ExtAuthz, place: usize, route: &Route) -> Counters {
        let context = Rc::clone(self.context);
        let chosen = match &route.action {
            Action::Forward(action) => action.choose(&self.head, self.random),
            _ => None,
        };
        let cluster = chosen.and_then(|chosen| self.snapshot.cluster(&chosen.cluster));
        let cluster = cluster.map(|cluster| {
            let state = context.worker.cluster(cluster);
            let stats = state.authz.of(&filter.stat_prefix);
            (state, stats)
        });
        Counters { context, place, cluster }
    }

    /// Waits for as much of the body as the service is to be told.
    async fn read_body(&mut self, settings: BodySettings, pending: &mut Pending<'_>) -> Result<Content, Authorized> {
        // Who waits to be told to go on would never send what we wait for.
        if let Some(interim) = interim::go_on(&mut self.head) {
            self.count_interims(1);
            if pending.responder.interim(&interim).is_err() || pending.responder.flush().await.is_err() {
                return Err(Authorized::Gone);
            }
        }
        let (mut bytes, mut frames, mut ended) = (BytesMut::new(), Vec::new(), false);
        while !(ended || settings.partial && bytes.len() >= settings.most) {
            match std::future::poll_fn(|cx| pending.body.poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    match &frame {
                        Frame::Data(data) => bytes.extend_from_slice(data),
                        Frame::Trailers(_) => ended = true,
                    }
                    frames.push(frame);
                    if bytes.len() > settings.most && !settings.partial {
                        if let Responder::H1(responder) = &pending.responder {
                            responder.keep_alive.set(false);
                        }
                        return Err(Authorized::Answered(Box::new(too_long())));
                    }
                }
                Some(Err(BodyError::Ended)) => return Err(Authorized::Gone),
                Some(Err(BodyError::Protocol)) => return Err(Authorized::Answered(Box::new(malformed()))),
                None => ended = true,
            }
        }
        let received = bytes.len();
        bytes.truncate(settings.most);
        let rest = std::mem::replace(pending.body, Body::Empty);
        *pending.body = Begun::body(frames, if ended { Body::Empty } else { rest });
        Ok(Content { cut: bytes.len() < received, received: received as u64, bytes: bytes.freeze() })
    }

    async fn ask_authorizer(
        &self,
        filter: &ExtAuthz,
        service: &Service,
        of_route: Option<&ext_authz::PerRoute>,
        body: Option<&Content>,
    ) -> Word {
        let connection = &self.context.connection;
        let asked = Asked {
            head: &self.head,
            ends: connection.ends(),
            id: self.context.worker.random(),
            time: self.info.start_time,
            body,
            metadata: &self.info.metadata,
        };
        let (worker, snapshot) = (&self.context.worker, &self.snapshot);
        match service {
            Service::Grpc(service) => {
                let question = filter.grpc_question(&asked, of_route);
                let answer = call(worker, snapshot, service, CHECK, &question).await?;
                filter.grpc_answer(&answer).map_err(|_| CallError::NotRead("the answer cannot be decoded"))
            }
            Service::Http(service) => {
                let (mut head, body) = filter.http_question(service, &asked);
                self.add_to_question(&service.headers_to_add, &mut head);
                let (head, body) = fetch(worker, snapshot, &service.cluster, service.timeout, head, body).await?;
                Ok(filter.http_answer(service, head, body))
            }
        }
    }

    fn add_to_question(&self, added: &lateen_engine::route::Mutations, head: &mut RequestHead) {
        let (info, original) = (&self.info, &self.head.headers);
        let value = |operator: &_, line: &mut Vec<u8>| request_value(operator, info, original, line);
        added.apply(&mut head.headers, Some(&mut head.authority), value);
    }

    fn take_word(&mut self, filter: &ExtAuthz, word: Word, counters: &Counters) -> Authorized {
        let (answer, metadata) = match word {
            Ok(word) => word,
            Err(error) => {
                tracing::debug!(%error, "the external authorizer does not answer");
                return self.take_failure(filter, None, counters);
            }
        };
        if !metadata.is_empty() {
            self.info.metadata.merge(ext_authz::NAME, metadata);
        }
        match answer {
            Answer::Allowed(mut changes) => {
                let changed = changes.are_any();
                let manager = &self.context.manager;
                let limits =
                    Limits { count: manager.max_headers_count as usize, bytes: manager.max_request_headers_bytes };
                if changed && changes.apply(&mut self.head, limits).is_err() {
                    return invalid(counters);
                }
                counters.each(|stats| stats.ok.inc());
                if changed {
                    self.head_changed();
                }
                if changes.concern_response() {
                    self.changes.push(*changes);
                }
                if changed && filter.clear_route_cache { Authorized::Changed } else { Authorized::Passed }
            }
            Answer::Denied(reply) => {
                counters.each(|stats| stats.denied.inc());
                if let Some((cluster, _)) = counters.cluster.as_ref().filter(|_| filter.charge_cluster) {
                    cluster.stats.status(reply.status.as_u16());
                }
                Authorized::Answered(reply)
            }
            Answer::Failed(failure) => self.take_failure(filter, Some(failure), counters),
            Answer::Invalid => invalid(counters),
        }
    }

    fn take_failure(
        &mut self,
        filter: &ExtAuthz,
        failure: Option<ext_authz::Failure>,
        counters: &Counters,
    ) -> Authorized {
        counters.each(|stats| stats.error.inc());
        match filter.failed(failure, &mut self.head) {
            Some(reply) => Authorized::Answered(Box::new(reply)),
            None => {
                counters.each(|stats| stats.failure_mode_allowed.inc());
                Authorized::Passed
            }
        }
    }
}

fn invalid(counters: &Counters) -> Authorized {
    counters.each(|stats| stats.invalid.inc());
    Authorized::Answered(Box::new(ExtAuthz::invalid()))
}

/// As Envoy answers a body that is longer than what it may hold.
fn too_long() -> LocalReply {
    LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large", "request_payload_too_large")
}

fn malformed() -> LocalReply {
    LocalReply::new(StatusCode::BAD_REQUEST, Bytes::new(), "http1.codec_error")
        .flag(ResponseFlag::DownstreamProtocolError)
}

/// Where a decision is counted: for the filter, and for the cluster to which the request goes.
struct Counters {
    context: Rc<super::connection::Context>,
    place: usize,
    cluster: Option<(Rc<ClusterState>, Rc<AuthzStats>)>,
}

impl Counters {
    fn of_filter(&self, count: impl Fn(&AuthzStats)) {
        if let Some(FilterStats::ExtAuthz(stats)) = self.context.state.filters.get(self.place) {
            count(stats);
        }
    }

    fn each(&self, count: impl Fn(&AuthzStats)) {
        self.of_filter(&count);
        if let Some((_, stats)) = &self.cluster {
            count(stats);
        }
    }
}

/// What comes of `work`, or nothing where the client leaves before.
async fn while_wanted<T>(pending: &mut Pending<'_>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let interims = Interims::new(false);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        let reader = pending.reader.filter(|_| pending.body.is_received());
        if pending.responder.poll_interims(&interims, cx).is_ready()
            || reader.is_some_and(|reader| poll_left(reader, cx).is_ready())
        {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

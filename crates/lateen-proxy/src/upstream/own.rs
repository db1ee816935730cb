//! Requests of the proxy's own: to one host of a cluster, once, without a route. Copies of requests, and calls of services
//! that it asks.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use lateen_engine::balance::outlier::Outcome;
use lateen_engine::message::RequestHead;

use super::attempt::{Answer, Outgoing, attempt};
use super::replay::Replay;
use crate::cluster::{Active, ClusterState, Slot, Tried, Wanted};
use crate::http::interim::Interims;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::stats::Held;
use crate::worker::Worker;

pub(crate) struct OwnRequest {
    pub head: RequestHead,
    pub body: Rc<Replay>,
    /// Of the body, if it is known.
    pub length: Option<u64>,
}

/// An answer, which counts as in flight until it is dropped.
pub(crate) struct OwnAnswer {
    pub answer: Answer,
    _counted: (Slot, Active, Held),
}

impl OwnRequest {
    /// Sends it, and waits for the head of the answer. `original`: for clusters that go where the client wanted to go.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn send(
        &self,
        worker: &Rc<Worker>,
        state: &Rc<ClusterState>,
        original: SocketAddr,
    ) -> Result<OwnAnswer, Failure> {
        let request = state.hold_request();
        let wanted = Wanted { original, name: Some(self.head.host()), port: None };
        let Some(host) = state.choose(worker, None, &wanted, &Tried::default()).await else {
            state.stats.cx_none_healthy.inc();
            return Err(Failure::with(FailureKind::Connect, "no healthy host"));
        };
        state.stats.rq_total.inc();
        let counted = (request, host.hold(), state.stats.rq_active.hold());
        let cluster = state.config();
        let names = cluster.auto_names.as_ref().map(|auto| auto.of(&self.head.headers, self.head.host()));
        let interims = Interims::new(false);
        let outgoing = Outgoing {
            head: &self.head,
            body: Rc::clone(&self.body),
            length: self.length,
            upgrade: None,
            raw: None,
            names: names.as_ref(),
            interims: &interims,
            spoken: &Cell::new(None),
        };
        match attempt(worker, state, &host, &outgoing).await {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                state.stats.status(status);
                state.note(worker, &host, Outcome::Connected);
                state.note(worker, &host, Outcome::Status(status));
                Ok(OwnAnswer { answer, _counted: counted })
            }
            Err(failure) => {
                if !failure.is_downstream() {
                    state.note(worker, &host, failure.outcome());
                }
                Err(failure)
            }
        }
    }
}

impl OwnAnswer {
    /// The answer was read to its end.
    pub(crate) fn finish(self) {
        self.answer.finish();
    }
}

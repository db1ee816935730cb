//! How a request comes by an HTTP/1.1 connection when none is idle: the first that another request gives back, or one that is
//! made meanwhile.
//!
//! A connection that is being made is finished even if the request that asked for it was served by another one, and goes to
//! whoever waits then. [`super::waiters`] says how many are made at one time: where handshakes take long, a burst of requests
//! begins none for which there would be no use.

use std::rc::Rc;
use std::task::{Context, Poll};

use lateen_engine::config::cluster::ServerNames;
use tokio::sync::oneshot;

use super::attempt::{ends, open};
use super::connect::Payload;
use super::pool::{H1, Limits, Pool};
use super::waiters::Waiting;
use crate::cluster::{ClusterState, Host};
use crate::telemetry::failure::Failure;
use crate::worker::Worker;

/// To where connections are made.
pub(super) struct Destination<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) state: &'a Rc<ClusterState>,
    pub(super) host: &'a Rc<Host>,
    pub(super) names: Option<&'a ServerNames>,
}

/// A request without a connection.
struct Acquiring<'a> {
    destination: Destination<'a>,
    limits: Limits,
    pool: &'a Pool,
    waiting: Waiting,
    /// The connection that is made for this request.
    made: Option<oneshot::Receiver<Result<H1, Failure>>>,
}

/// Waits for a connection.
///
/// # Errors
/// The one that was made for this request could not be made.
pub(super) async fn acquire(destination: Destination<'_>, pool: &Pool, limits: Limits) -> Result<H1, Failure> {
    let mut acquiring = Acquiring { destination, limits, pool, waiting: pool.wait(), made: None };
    std::future::poll_fn(|cx| acquiring.poll(cx)).await
}

impl Acquiring<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<H1, Failure>> {
        loop {
            if let Some(made) = &mut self.made
                && let Poll::Ready(outcome) = std::pin::Pin::new(made).poll(cx)
            {
                self.made = None;
                self.waiting.has_own(false);
                // Without an outcome the host was retired meanwhile, and is connected to in another way.
                if let Ok(outcome) = outcome {
                    return Poll::Ready(outcome);
                }
            }
            if let Some(connection) = self.pool.take_h1() {
                return Poll::Ready(Ok(connection));
            }
            if let Some(failure) = self.waiting.failure() {
                return Poll::Ready(Err(failure));
            }
            self.waiting.wakes(cx.waker());
            if self.made.is_some() || !self.waiting.may_make() {
                return Poll::Pending;
            }
            self.made = Some(self.make());
            self.waiting.has_own(true);
        }
    }

    /// Begins a connection in a task of its own, which outlives this request.
    fn make(&self) -> oneshot::Receiver<Result<H1, Failure>> {
        let (tell, made) = oneshot::channel();
        let Destination { worker, state, host, names } = self.destination;
        let (worker, state, host) = (Rc::clone(worker), Rc::clone(state), Rc::clone(host));
        // What is in force now, as the pool's generation is.
        let (cluster, names) = (state.config(), names.cloned());
        let (pool, limits, making) = (self.pool.clone(), self.limits, self.pool.making());
        let generation = self.pool.generation();
        tokio::task::spawn_local(async move {
            let opened = Box::pin(open(&worker, &state, &host, &cluster, names.as_ref(), Payload::Http1)).await;
            drop(making);
            if generation != pool.generation() {
                // Has its request look again.
                drop(tell);
                return pool.made_none();
            }
            let outcome = opened.map(|(connected, slot, held)| {
                H1::new(connected, &pool, generation, ends(&worker, &cluster), (slot, held))
            });
            if let Err(failure) = &outcome {
                pool.failed(failure, !tell.is_closed());
            }
            if let Err(Ok(connection)) = tell.send(outcome) {
                // Its request was served by another connection, or is gone.
                pool.give_h1(connection, &limits);
            }
            pool.made_none();
        });
        made
    }
}

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        let Some(made) = &mut self.made else { return };
        made.close();
        if let Ok(Ok(connection)) = made.try_recv() {
            self.pool.give_h1(connection, &self.limits);
        }
    }
}

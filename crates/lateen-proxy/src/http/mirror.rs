//! Copies of requests for other clusters (`request_mirror_policies`). A copy is a request of its own: it shares the body's
//! bytes with the request, and nothing else. It never delays the request and cannot fail it: where its own upstream is
//! slow, missing or full, the copy is given up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::HeaderValue;
use lateen_engine::message::RequestHead;
use lateen_engine::route::action::Forward;

use super::body::{Body, BodyError, Frame};
use super::request::Exchange;
use crate::cluster::ClusterState;
use crate::upstream::own::OwnRequest;
use crate::upstream::replay::Replay;
use crate::worker::Worker;
use lateen_engine::headers::INTERNAL;

/// How far the request may be ahead of a copy, in bytes of the body.
const BOUND: usize = 1 << 20;

/// What all copies under way on one worker may hold back, and what one counts for besides its body.
const MOST_HELD: usize = 64 << 20;
const HEAD: usize = 16 << 10;

/// The copies of one request that are under way.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<Rc<RefCell<Queue>>>);

/// What a copy has still to send.
#[derive(Debug)]
pub(crate) struct Queue {
    frames: VecDeque<Frame>,
    held: usize,
    end: Option<Result<(), BodyError>>,
    waker: Option<Waker>,
    worker: Rc<Worker>,
}

impl Copies {
    /// Begins the copies that the route asks for. `outgoing`: the request as it goes up.
    pub(super) fn begin(
        exchange: &Exchange<'_>,
        action: &Forward,
        outgoing: &RequestHead,
        (length, whole): (Option<u64>, bool),
        timeout: Option<Duration>,
    ) -> Self {
        let mut copies = Self::default();
        for mirror in &action.mirrors {
            let Some(name) = mirror.cluster(outgoing, exchange.random) else { continue };
            let Some(cluster) = exchange.snapshot.cluster(&name) else { continue };
            let worker = &exchange.context.worker;
            let state = worker.cluster(cluster);
            if !state.in_flight().may_request(&state.limits(false)) || worker.mirrored.get() >= MOST_HELD {
                state.stats.rq_pending_overflow.inc();
                continue;
            }
            let mut head = outgoing.clone();
            head.authority = mirror.host(&outgoing.authority);
            // As Envoy's: the copy comes from the proxy itself.
            head.headers.set(INTERNAL, HeaderValue::from_static("true"));
            let queue = Queue::new(worker, whole);
            let body = Body::Copy(CopyBody(Rc::clone(&queue)));
            let original = exchange.context.connection.local;
            let copy = OwnRequest { head, body: Rc::new(Replay::new(body, false)), length };
            let sending = until_given_up(Rc::clone(&queue), send(copy, Rc::clone(worker), state, original));
            tokio::task::spawn_local(async move {
                match timeout {
                    None => sending.await,
                    // Time-outs of copies are nobody's failure.
                    Some(timeout) => drop(tokio::time::timeout(timeout, sending).await),
                }
            });
            if !whole {
                copies.0.push(queue);
            }
        }
        copies
    }

    /// Passes on what has come of the body; `None`: its end.
    pub(crate) fn frame(&mut self, frame: Option<&Frame>) {
        // A copy whose task has ended, or which is too far behind, is not fed any longer.
        self.0.retain(|queue| Rc::strong_count(queue) > 1 && queue.borrow_mut().push(frame));
    }
}

impl Drop for Copies {
    /// The body ends before its end: so do the copies.
    fn drop(&mut self) {
        for queue in &self.0 {
            queue.borrow_mut().finish(Err(BodyError::Ended));
        }
    }
}

impl Queue {
    fn new(worker: &Rc<Worker>, whole: bool) -> Rc<RefCell<Self>> {
        worker.mirrored.set(worker.mirrored.get() + HEAD);
        Rc::new(RefCell::new(Self {
            frames: VecDeque::new(),
            held: 0,
            end: whole.then_some(Ok(())),
            waker: None,
            worker: Rc::clone(worker),
        }))
    }

    /// False once there is no use in more.
    fn push(&mut self, frame: Option<&Frame>) -> bool {
        match frame {
            None => {
                self.finish(Ok(()));
                false
            }
            Some(frame) => {
                self.hold(frame.byte_len());
                if self.held > BOUND || self.worker.mirrored.get() > MOST_HELD {
                    self.finish(Err(BodyError::Ended));
                    return false;
                }
                self.frames.push_back(frame.clone());
                self.wake();
                true
            }
        }
    }

    fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        self.worker.mirrored.set(self.worker.mirrored.get() + bytes);
    }

    fn finish(&mut self, end: Result<(), BodyError>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.worker.mirrored.set(self.worker.mirrored.get() - self.held - HEAD);
    }
}

/// The body of a copy.
#[derive(Debug)]
pub(crate) struct CopyBody(Rc<RefCell<Queue>>);

impl CopyBody {
    pub(super) fn is_end(&self) -> bool {
        let queue = self.0.borrow();
        queue.frames.is_empty() && queue.end == Some(Ok(()))
    }

    pub(super) fn poll_frame(&mut self) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut queue = self.0.borrow_mut();
        // A copy that fell behind sends no more of what it has.
        if let Some(Err(error)) = queue.end {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(frame) = queue.frames.pop_front() {
            let bytes = frame.byte_len();
            queue.held -= bytes;
            queue.worker.mirrored.set(queue.worker.mirrored.get() - bytes);
            return Poll::Ready(Some(Ok(frame)));
        }
        if queue.end.is_some() {
            return Poll::Ready(None);
        }
        // The task that polls this is the one that is woken.
        Poll::Pending
    }
}

/// Sends a copy as long as there is use in it, be it stuck in a connection that takes no more.
async fn until_given_up(queue: Rc<RefCell<Queue>>, sending: impl Future<Output = ()>) {
    let mut sending = std::pin::pin!(sending);
    std::future::poll_fn(|cx| {
        {
            let mut queue = queue.borrow_mut();
            if let Some(Err(_)) = queue.end {
                return Poll::Ready(());
            }
            queue.waker = Some(cx.waker().clone());
        }
        sending.as_mut().poll(cx)
    })
    .await;
}

/// Sends a copy, and reads the answer to its end. What comes of it concerns nobody.
async fn send(copy: OwnRequest, worker: Rc<Worker>, state: Rc<ClusterState>, original: SocketAddr) {
    let Ok(mut sent) = copy.send(&worker, &state, original).await else { return };
    while let Some(frame) = sent.answer.frame().await {
        if frame.is_err() {
            return;
        }
    }
    sent.finish();
}

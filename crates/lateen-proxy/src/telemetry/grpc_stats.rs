//! gRPC statistics of a cluster on one worker, under Envoy's names. A method's handles are looked up once, and each is made
//! when there is something to count, as in Envoy.
//!
//! A message is counted when it is read from its sender. Where no upstream took the request, its body is not read, and its
//! messages are not counted; Envoy counts those that happen to be there by then.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use lateen_engine::filters::http::grpc_stats::{Counted, FrameCounter};

use super::stats::{Counter, Registry, Scope};
use super::stream_info::{MessageCounts, StreamInfo};
use crate::http::body::Frame;

/// Clients name methods: further ones, and longer names, are counted together with those that have no numbers of their own.
const MOST_METHODS: usize = 1000;
const LONGEST_NAME: usize = 256;

/// Servers name statuses: further ones, and longer ones, count as failures only.
const MOST_STATUSES: usize = 16;
const LONGEST_STATUS: usize = 16;

/// gRPC's own statuses ("Status codes and their use in gRPC").
const STATUSES: [&str; 17] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];

type ByMethod = HashMap<Box<str>, Rc<MethodStats>>;

#[derive(Debug)]
pub(crate) struct GrpcStats {
    registry: Registry,
    scope: Scope,
    together: Rc<MethodStats>,
    services: RefCell<HashMap<Box<str>, ByMethod>>,
    /// How many methods there are in all services.
    known: Cell<usize>,
}

/// What is counted of one method, or of all that are counted together.
#[derive(Debug)]
pub(crate) struct MethodStats {
    registry: Registry,
    scope: Scope,
    /// What names begin with: `service.method.`, or nothing.
    prefix: Box<str>,
    success: OnceCell<Counter>,
    failure: OnceCell<Counter>,
    total: OnceCell<Counter>,
    request_messages: OnceCell<Counter>,
    response_messages: OnceCell<Counter>,
    statuses: [OnceCell<Counter>; STATUSES.len()],
    /// Those that are not gRPC's.
    others: RefCell<Vec<(Box<str>, Counter)>>,
}

/// The messages of one direction of a call.
#[derive(Debug)]
pub(crate) struct Messages {
    counter: FrameCounter,
    stats: Rc<MethodStats>,
    /// Of the one call.
    counts: Rc<MessageCounts>,
    direction: Direction,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl GrpcStats {
    pub(crate) fn new(registry: &Registry, cluster: Arc<str>) -> Self {
        let scope = Scope::Grpc(cluster);
        let together = Rc::new(MethodStats::new(registry, &scope, String::new()));
        Self { registry: registry.clone(), scope, together, services: RefCell::default(), known: Cell::default() }
    }

    /// The numbers of what a call is counted under.
    pub(crate) fn of(&self, counted: &Counted<'_>) -> Rc<MethodStats> {
        let Counted::Method { service, method } = counted else { return Rc::clone(&self.together) };
        let mut services = self.services.borrow_mut();
        if let Some(stats) = services.get(&**service).and_then(|methods| methods.get(*method)) {
            return Rc::clone(stats);
        }
        if self.known.get() >= MOST_METHODS || service.len() + method.len() > LONGEST_NAME {
            return Rc::clone(&self.together);
        }
        self.known.set(self.known.get() + 1);
        let stats = Rc::new(MethodStats::new(&self.registry, &self.scope, format!("{service}.{method}.")));
        services.entry((&**service).into()).or_default().insert((*method).into(), Rc::clone(&stats));
        stats
    }
}

impl MethodStats {
    fn new(registry: &Registry, scope: &Scope, prefix: String) -> Self {
        Self {
            registry: registry.clone(),
            scope: scope.clone(),
            prefix: prefix.into(),
            success: OnceCell::new(),
            failure: OnceCell::new(),
            total: OnceCell::new(),
            request_messages: OnceCell::new(),
            response_messages: OnceCell::new(),
            statuses: [const { OnceCell::new() }; STATUSES.len()],
            others: RefCell::default(),
        }
    }

    /// Counts a `grpc-status`, be it in a head or in trailers.
    pub(crate) fn status(&self, status: &HeaderValue) {
        match STATUSES.iter().position(|known| known.as_bytes() == status.as_bytes()) {
            Some(index) => self.counter(&self.statuses[index], STATUSES[index]).inc(),
            None => self.other(status),
        }
        // Envoy compares the text: `00` is a failure.
        if status.as_bytes() == b"0" {
            self.counter(&self.success, "success").inc();
        } else {
            self.counter(&self.failure, "failure").inc();
        }
        self.counter(&self.total, "total").inc();
    }

    fn other(&self, status: &HeaderValue) {
        let Ok(status) = status.to_str() else { return };
        let mut others = self.others.borrow_mut();
        if let Some((_, counter)) = others.iter().find(|(known, _)| **known == *status) {
            counter.inc();
        } else if others.len() < MOST_STATUSES && (1..=LONGEST_STATUS).contains(&status.len()) {
            let counter = self.new_counter(status);
            counter.inc();
            others.push((status.into(), counter));
        }
    }

    fn messages(&self, direction: Direction, count: u64) {
        match direction {
            Direction::Request => self.counter(&self.request_messages, "request_message_count").add(count),
            Direction::Response => self.counter(&self.response_messages, "response_message_count").add(count),
        }
    }

    fn counter<'a>(&'a self, cell: &'a OnceCell<Counter>, name: &'static str) -> &'a Counter {
        cell.get_or_init(|| self.new_counter(name))
    }

    fn new_counter(&self, name: &str) -> Counter {
        self.registry.counter(&self.scope, format!("{}{name}", self.prefix))
    }
}

impl Messages {
    pub(crate) fn new(stats: &Rc<MethodStats>, direction: Direction, info: &mut StreamInfo) -> Self {
        let counts = Rc::clone(info.messages.get_or_insert_default());
        Self { counter: FrameCounter::default(), stats: Rc::clone(stats), counts, direction }
    }

    /// Counts what begins in the next piece of the body.
    pub(crate) fn data(&mut self, data: &[u8]) {
        let begun = self.counter.count(data);
        if begun > 0 {
            self.stats.messages(self.direction, begun);
            let count = match self.direction {
                Direction::Request => &self.counts.requests,
                Direction::Response => &self.counts.responses,
            };
            count.set(count.get() + begun);
        }
    }

    /// The same, of a frame.
    pub(crate) fn frame(&mut self, frame: &Frame) {
        if let Frame::Data(data) = frame {
            self.data(data);
        }
    }
}

//! Interim responses (1xx, RFC 9110 section 15.2) on their way to a client that still waits for the final one.
//!
//! Envoy's two ways (HttpConnectionManager.proxy_100_continue): by default the connection manager itself tells a client that
//! asks to go on, at once, and keeps what the upstream says to itself; or what the client expects goes up, and every interim
//! response comes down as it is. Where Envoy passes only the first of several on, all are passed here, as the RFC asks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use http::{StatusCode, header};
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Version};

/// So many wait for a client that reads slowly; what comes then is dropped, as a client may do with all of them.
const MOST: usize = 16;

/// From the upstream to the client.
#[derive(Debug)]
pub(crate) struct Interims {
    /// They are passed on.
    passes: bool,
    waiting: RefCell<VecDeque<ResponseHead>>,
    count: Cell<u32>,
}

impl Interims {
    pub(crate) fn new(passes: bool) -> Self {
        Self { passes, waiting: RefCell::default(), count: Cell::new(0) }
    }

    pub(crate) fn push(&self, head: ResponseHead) {
        self.count.set(self.count.get().saturating_add(1));
        let mut waiting = self.waiting.borrow_mut();
        if self.passes && waiting.len() < MOST {
            waiting.push_back(head);
        }
    }

    pub(super) fn pop(&self) -> Option<ResponseHead> {
        self.waiting.borrow_mut().pop_front()
    }

    /// How many were or will be passed on.
    pub(super) fn passed(&self) -> u32 {
        if self.passes { self.count() } else { 0 }
    }

    /// How many came.
    pub(super) fn count(&self) -> u32 {
        self.count.get()
    }
}

/// `100 Continue`, for a client that waits for it. One that speaks HTTP/1.0 does not know it (RFC 9110 section 10.1.1).
pub(super) fn go_on(head: &mut RequestHead) -> Option<ResponseHead> {
    let expects = head.headers.get(&header::EXPECT)?.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !expects || head.version == Version::Http10 {
        return None;
    }
    head.headers.remove(&header::EXPECT);
    Some(ResponseHead { status: StatusCode::CONTINUE, headers: Headers::default(), version: head.version })
}

//! After an upgrade the connection is bytes in both directions.

use std::time::Duration;

use bytes::BytesMut;

use super::request::Exchange;
use crate::stream::{Rewound, Stream};
use crate::tcp::copy;

/// A connection to the upstream behind a 101, and the record of the request that led to it.
pub(super) struct Upgraded<'a> {
    pub(super) up: (Stream, BytesMut),
    /// The tunnel ends when nothing has moved for so long.
    pub(super) idle: Option<Duration>,
    pub(super) exchange: Exchange<'a>,
}

impl Upgraded<'_> {
    /// Copies both ways until both have ended, and closes the record.
    pub(super) async fn tunnel(self, down: (Stream, BytesMut)) {
        let Self { up, idle, mut exchange } = self;
        let alarm = exchange.context.worker.alarms.alarm();
        let mut down = Rewound { prefix: down.1, stream: down.0 };
        let mut up = Rewound { prefix: up.1, stream: up.0 };
        (exchange.info.received, exchange.info.sent) = copy::both(&mut down, &mut up, idle, alarm).await;
        exchange.record();
    }
}

//! After an upgrade the connection is bytes in both directions.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use lateen_engine::route::Route;

use super::request::Exchange;
use crate::stream::{Rewound, Stream};
use crate::tcp::copy;

/// A connection to the upstream behind a 101.
pub(super) struct Tunnel {
    pub(super) up: (Stream, BytesMut),
    /// The tunnel ends when nothing has moved for so long.
    pub(super) idle: Option<Duration>,
    /// Of the request that led to it.
    pub(super) route: Arc<Route>,
}

/// The same, and the record of that request.
pub(super) struct Upgraded<'a> {
    pub(super) tunnel: Tunnel,
    pub(super) exchange: Exchange<'a>,
}

impl Upgraded<'_> {
    /// Copies both ways until both have ended or rules deny it, and closes the record.
    pub(super) async fn tunnel(self, down: (Stream, BytesMut)) {
        let Self { tunnel: Tunnel { up, idle, route }, mut exchange } = self;
        let alarm = exchange.context.worker.alarms.alarm();
        let mut down = Rewound { prefix: down.1, stream: down.0 };
        let mut up = Rewound { prefix: up.1, stream: up.0 };
        let copying = pin!(copy::both(&mut down, &mut up, idle, alarm));
        match exchange.unless_revoked(&route, None, copying).await {
            Ok(moved) => (exchange.info.received, exchange.info.sent) = moved,
            Err(answer) => exchange.info.details = answer.details,
        }
        exchange.record();
    }
}

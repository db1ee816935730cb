//! After an upgrade, or behind a CONNECT, there are bytes in both directions.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use lateen_engine::route::Route;

use super::request::Exchange;
use crate::stream::{Rewound, Stream};
use crate::tcp::copy::{self, Limits};
use crate::upstream::attempt::Upstream;

/// A way to the upstream, and what is known of the one to the client.
pub(super) struct Tunnel {
    pub(super) up: Upstream,
    /// The client's, if it is a stream of HTTP/2; else it is the connection.
    pub(super) down: Option<Stream>,
    /// It ends when nothing has moved for so long.
    pub(super) idle: Option<Duration>,
    /// Of the request that led to it.
    pub(super) route: Arc<Route>,
}

/// With the record of the request that led to it.
pub(super) struct Upgraded<'a> {
    pub(super) tunnel: Tunnel,
    pub(super) exchange: Exchange<'a>,
}

impl Upgraded<'_> {
    /// Copies both ways until both have ended or rules deny it, and closes the record. `down` is the client's connection, and
    /// what was read of it.
    pub(super) async fn tunnel(self, down: Option<(Stream, BytesMut)>) {
        let Self { tunnel, mut exchange } = self;
        let down = tunnel.down.map(|stream| (stream, BytesMut::new())).or(down);
        if let Some((stream, prefix)) = down {
            let alarm = exchange.context.worker.alarms.alarm();
            let mut down = Rewound { prefix, stream };
            let Upstream { stream, read, counted } = tunnel.up;
            let mut up = Rewound { prefix: read, stream };
            let limits = Limits { idle: tunnel.idle, ends: exchange.ends.map(Into::into) };
            let copying = pin!(copy::both(&mut down, &mut up, limits, alarm));
            match exchange.unless_revoked(&tunnel.route, None, copying).await {
                Ok(moved) => (exchange.info.received, exchange.info.sent) = moved,
                Err(answer) => exchange.info.details = answer.details,
            }
            drop(counted);
        }
        exchange.record();
    }
}

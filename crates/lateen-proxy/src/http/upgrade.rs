//! After an upgrade the connection is bytes in both directions.

use bytes::BytesMut;

use crate::stream::{Rewound, Stream};
use crate::tcp::copy;

/// Copies both ways until both have ended; returns bytes up and down.
pub(super) async fn tunnel(down: (Stream, BytesMut), up: (Stream, BytesMut)) -> (u64, u64) {
    let mut down = Rewound { prefix: down.1, stream: down.0 };
    let mut up = Rewound { prefix: up.1, stream: up.0 };
    copy::both(&mut down, &mut up, None).await
}

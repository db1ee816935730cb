//! xDS resources compiled into an immutable Snapshot, and every decision that needs no socket.

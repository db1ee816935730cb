//! HTTP/2 (RFC 9113): heads in our form and back, and bodies that honour flow control on both sides.
//!
//! A connection is a state machine without a socket, shared by those who hold its streams (`handles`) and by the one task
//! that moves its bytes (`driver`). Who holds a stream writes frames straight into the connection's queue, as far as windows
//! and the queue's bound allow, and wakes the driver: all that was queued in one turn of the worker goes out together.

mod connection;
mod driver;
mod duplex;
pub(in crate::codec) mod flood;
pub(in crate::codec) mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod handles;
mod heads;
mod out;
mod receive;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::{Role, Settings};
pub(crate) use driver::Driver;
pub(crate) use duplex::Duplex;
pub(crate) use frame::{PREFACE, Reason};
pub(crate) use handles::{Accepted, Opener, RecvStream, SendStream};
pub(crate) use stream::Ended;

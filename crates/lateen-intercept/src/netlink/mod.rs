//! Netlink, the kernel's message socket for network configuration: message framing and request/answer exchange.

mod message;
mod socket;

pub use message::{Attributes, Message};
pub use socket::{Error, Protocol, Socket};

//! What fuzzers run, and every test run with the inputs that are kept in `fuzz/corpus`: the parsers of bytes from the network,
//! each with what must hold whatever they are fed. Not part of the program.

mod bytes;
mod http1;
mod peek;

pub(crate) use bytes::Input;

pub use crate::codec::h2::fuzz::{client as http2_client, server as http2_server};
pub use crate::codec::hpack::fuzz::hpack;
pub use crate::codec::mux::fuzz::mux;
pub use http1::{body as http1_body, request as http1_request, response as http1_response};
pub use peek::{client_hello, proxy_protocol};

/// By the name of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("client_hello", client_hello),
    ("hpack", hpack),
    ("http1_body", http1_body),
    ("http1_request", http1_request),
    ("http1_response", http1_response),
    ("http2_client", http2_client),
    ("http2_server", http2_server),
    ("mux", mux),
    ("proxy_protocol", proxy_protocol),
];

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_are_kept_still_pass() {
        for (target, run) in super::TARGETS {
            lateen_testing::corpus::replay(target, *run);
        }
    }
}

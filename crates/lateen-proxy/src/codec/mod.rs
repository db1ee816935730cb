//! Bytes to heads and bodies, and back: HTTP/1.1 and HTTP/2, both by codecs of our own. Everything past this boundary sees
//! one form of request and response. `mux` carries connections of whatever protocol between two of our own proxies.

mod bell;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod hpack;
pub(crate) mod mux;

//! Bytes to heads and bodies, and back: HTTP/1.1 by a codec of our own, HTTP/2 by `h2`. Everything past this boundary sees
//! one form of request and response.

pub(crate) mod h1;
pub(crate) mod h2;

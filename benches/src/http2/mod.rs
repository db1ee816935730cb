//! As much of HTTP/2 (RFC 9113) as both ends of the benchmark need: frames, windows, and what a header block says of success.

mod frame;
mod hpack;

pub(crate) use frame::{Frame, Kind, MAX_WINDOW, PREFACE, begin, flags, put, put_window_update, take};
pub(crate) use hpack::{Encoder, Reader};

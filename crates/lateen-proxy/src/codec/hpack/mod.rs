//! HPACK (RFC 7541): header fields as HTTP/2 carries them. Both sides keep a table of what was said before, so that most
//! fields of most messages are one byte; the decoder's entries hold fields that are parsed and checked already.

mod decode;
mod encode;
mod field;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod huffman;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::{Encoder, Keep};
pub(crate) use field::{Field, is_authority};

/// What an entry counts for besides its name and value (section 4.1).
const OVERHEAD: usize = 32;

/// The most that either table holds: the protocol's default, which our SETTINGS leave as it is.
const TABLE_SIZE: usize = 4096;

/// The first index behind the static table (section 2.3.3).
const FIRST_DYNAMIC: usize = 62;

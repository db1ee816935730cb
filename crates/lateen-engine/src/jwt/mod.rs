//! JSON Web Tokens (RFC 7519) as Envoy's JWT filter takes them: read, and held against key sets (RFC 7517). The clock and the
//! keys are passed in.
//!
//! Stricter than Envoy where leniency helps nobody but attackers: encodings have one form, JSON has no name twice, a header
//! that names extensions (`crit`) is refused, an algorithm belongs to one kind of key, keys that two parties share (`HS…`)
//! are not taken, and RSA keys have 2048 bits at least (RFC 7518, section 3.3).

mod failure;
mod keys;
mod token;

pub use failure::Failure;
pub use keys::KeySet;
pub use token::{Algorithm, Token};

#[cfg(test)]
mod tests;

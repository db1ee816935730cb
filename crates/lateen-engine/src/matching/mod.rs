//! Matchers, compiled once: text, headers, paths, addresses.

pub mod addresses;
pub mod headers;
pub mod paths;
pub mod strings;

pub(crate) use headers::Field;
pub use headers::HeaderMatcher;
pub use strings::StringMatcher;

#[cfg(test)]
mod tests;

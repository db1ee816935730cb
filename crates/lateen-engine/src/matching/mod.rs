//! Matchers, compiled once: text, headers, paths, addresses.

pub mod addresses;
pub mod headers;
pub mod metadata;
pub mod paths;
pub mod strings;

pub(crate) use headers::Field;
pub use headers::HeaderMatcher;
pub use metadata::MetadataMatcher;
pub use strings::StringMatcher;

#[cfg(test)]
mod tests;

//! Where objects come from.

pub mod dir;

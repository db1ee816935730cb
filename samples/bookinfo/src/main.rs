//! Bookinfo.
fn main() {}

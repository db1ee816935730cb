//! The protocol, end to end.

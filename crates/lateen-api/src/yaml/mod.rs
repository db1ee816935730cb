//! YAML with positions: documents become trees whose every node knows its line, and a deserialiser over such a tree that
//! notes unknown fields with their place instead of skipping or stopping at them.

mod de;
mod positions;
mod tree;

pub use de::{Failure, MAX_UNKNOWN, Unknown, from_node};
pub use positions::Positions;
pub(crate) use positions::join;
pub use tree::{Document, MAX_DEPTH, MAX_KEY, MAX_NODES, Node, SyntaxError, Value, documents};

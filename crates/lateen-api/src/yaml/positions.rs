//! Where each field of an object stands, by its path, so that a later check can name the line.

use std::collections::HashMap;

use super::{Node, Value};

/// Field path (`spec.http[0].route[1].weight`) → line and column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(HashMap<Box<str>, (u32, u32)>);

/// So many bytes of paths are kept for one object. Fields beyond are found by the nearest one around them; only a text made
/// to be long and deep gets there.
const MAX_BYTES: usize = 8 << 20;

impl Positions {
    /// Of all fields below `node`; none for a tree that did not come from a text.
    pub fn of(node: &Node) -> Self {
        let mut positions = Self::default();
        if node.line > 0 {
            let mut left = MAX_BYTES;
            positions.insert("", node, &mut left);
            positions.collect(node, &mut String::new(), &mut left);
        }
        positions
    }

    fn collect(&mut self, node: &Node, path: &mut String, left: &mut usize) {
        let before = path.len();
        match &node.value {
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    if !self.insert(path, item, left) {
                        return;
                    }
                    self.collect(item, path, left);
                    path.truncate(before);
                }
            }
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    if before > 0 {
                        path.push('.');
                    }
                    path.push_str(key.as_str().unwrap_or_default());
                    // A field is pointed at by its name, which is where a reader looks.
                    if !self.insert(path, key, left) {
                        return;
                    }
                    self.collect(value, path, left);
                    path.truncate(before);
                }
            }
            _ => {}
        }
    }

    /// False if there is no room left.
    fn insert(&mut self, path: &str, at: &Node, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(path.len()) else { return false };
        *left = rest;
        self.0.insert(path.into(), (at.line, at.column));
        true
    }

    /// The position of `path`, or of the nearest field around it.
    pub fn nearest(&self, path: &str) -> Option<(u32, u32)> {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return Some(*position);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// `path.name`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

//! Where each field of an object stands, by its path, so that a later check can name the line.

use std::collections::HashMap;

use super::{Node, Value};

/// Field path (`spec.http[0].route[1].weight`) → line and column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(HashMap<String, (u32, u32)>);

impl Positions {
    pub fn of(node: &Node) -> Self {
        let mut positions = Self::default();
        if node.line > 0 {
            positions.collect(node, String::new());
        }
        positions
    }

    fn collect(&mut self, node: &Node, path: String) {
        match &node.value {
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(item, format!("{path}[{index}]"));
                }
            }
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    let name = key.as_str().unwrap_or_default();
                    let path = join(&path, name);
                    self.collect(value, path.clone());
                    // A field is pointed at by its name, which is where a reader looks.
                    self.0.insert(path, (key.line, key.column));
                }
                self.0.entry(path).or_insert((node.line, node.column));
                return;
            }
            _ => {}
        }
        self.0.insert(path, (node.line, node.column));
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

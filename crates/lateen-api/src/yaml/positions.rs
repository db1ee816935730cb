//! Where each field of an object stands, by its path, so that a later check can name the line.

use std::cmp::Ordering;

use super::{Node, Value};

/// Field path (`spec.http[0].route[1].weight`) → line and column.
///
/// Objects stay for as long as a control plane does, so this is kept small: all paths in one text, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    paths: Box<str>,
    places: Box<[Place]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Where its path ends in `paths`; it begins where that of the place before ends.
    end: u32,
    line: u32,
    column: u32,
}

/// So many bytes of paths are kept for one object. Fields beyond are found by the nearest one around them; only a text made
/// to be long and deep gets there.
const MAX_BYTES: usize = 8 << 20;

impl Positions {
    /// Of all fields below `node`; none for a tree that did not come from a text.
    pub fn of(node: &Node) -> Self {
        let mut found = Found { list: Vec::new(), left: MAX_BYTES };
        if node.line > 0 {
            found.insert("", node);
            found.collect(node, &mut String::new());
        }
        found.finish()
    }

    /// The position of `path`, or of the nearest field around it.
    pub fn nearest(&self, path: &str) -> Option<(u32, u32)> {
        let mut path = path;
        loop {
            if let Some(place) = self.place(path) {
                return Some((place.line, place.column));
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    fn place(&self, path: &str) -> Option<Place> {
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.path(middle).cmp(path) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(self.places[middle]),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn path(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.places[at - 1].end };
        &self.paths[start as usize..self.places[at].end as usize]
    }
}

/// What has been found, in the order of the text.
struct Found {
    list: Vec<(Box<str>, (u32, u32))>,
    /// Bytes of paths that may still be kept.
    left: usize,
}

impl Found {
    fn collect(&mut self, node: &Node, path: &mut String) {
        let before = path.len();
        match &node.value {
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    if !self.insert(path, item) {
                        return;
                    }
                    self.collect(item, path);
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
                    if !self.insert(path, key) {
                        return;
                    }
                    self.collect(value, path);
                    path.truncate(before);
                }
            }
            _ => {}
        }
    }

    /// False if there is no room left.
    fn insert(&mut self, path: &str, at: &Node) -> bool {
        let Some(rest) = self.left.checked_sub(path.len()) else { return false };
        self.left = rest;
        self.list.push((path.into(), (at.line, at.column)));
        true
    }

    fn finish(mut self) -> Positions {
        // Keys with dots in them can give two fields one path: the later one has it.
        self.list.reverse();
        self.list.sort_by(|a, b| a.0.cmp(&b.0));
        self.list.dedup_by(|later, kept| later.0 == kept.0);
        let mut paths = String::with_capacity(self.list.iter().map(|(path, _)| path.len()).sum());
        let mut places = Vec::with_capacity(self.list.len());
        for (path, (line, column)) in self.list {
            paths.push_str(&path);
            let end = u32::try_from(paths.len()).expect("MAX_BYTES is far below 4 GB");
            places.push(Place { end, line, column });
        }
        Positions { paths: paths.into(), places: places.into() }
    }
}

/// `path.name`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

//! Which of several objects that claim the same thing wins: the oldest.

use std::sync::Arc;

/// Orders objects as Istio does: by age, then name, then namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Age {
    /// Order of first sight: smaller is older.
    first_seen: u64,
    name: Arc<str>,
    namespace: Arc<str>,
}

impl Age {
    pub fn new(first_seen: u64, name: &str, namespace: &str) -> Self {
        Self { first_seen, name: name.into(), namespace: namespace.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_then_name_then_namespace() {
        let oldest_first = [
            Age::new(0, "z", "a"),
            Age::new(1, "b", "a"),
            Age::new(2, "a", "a"),
            Age::new(2, "a", "b"),
            Age::new(2, "b", "a"),
        ];
        assert!(oldest_first.is_sorted());
    }
}

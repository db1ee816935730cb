//! What one proxy should have at one revision.

use std::sync::Arc;

use crate::Resource;

/// All resources of one proxy at one revision; immutable.
pub trait View: Send + Sync + 'static {
    /// Grows with every change of the configuration.
    fn revision(&self) -> u64;

    /// The selected resources, as far as they exist, each name once. Equal selections give equal resources.
    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource>;

    /// Whether resources of this type may differ from those at revision `since`. A `false` saves the comparison.
    fn may_differ(&self, type_url: &str, since: u64) -> bool {
        let _ = (type_url, since);
        true
    }
}

/// Which resources of a type.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// Whatever the proxy should have.
    All,
    Named(&'a [Arc<str>]),
}

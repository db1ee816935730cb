//! What one proxy should have at one revision.

use std::any::Any;
use std::sync::Arc;

use crate::Resource;

/// All resources of one proxy at one revision; immutable.
pub trait View: Any + Send + Sync {
    /// Grows with every change of the objects that the configuration is made of. It stays where something else has changed,
    /// such as the keys of an issuer.
    fn revision(&self) -> u64;

    /// The selected resources, as far as they exist, each name once. Equal selections give equal resources.
    fn resources(&self, type_url: &str, selection: Selection<'_>) -> Vec<Resource>;

    /// The same, for a proxy that asks for these virtual hosts one by one (`vhds`) and is to have only what they lead to. None
    /// where what a proxy should have does not depend on what it asks for.
    fn demanding(&self, hosts: &[Arc<str>]) -> Option<Arc<dyn View>> {
        let _ = hosts;
        None
    }

    /// Which resources of this type may differ from those of `before`, an earlier view of the same proxy. All others are
    /// not looked at.
    fn changes(&self, type_url: &str, before: &dyn View) -> Changes {
        let _ = (type_url, before);
        Changes::Anything
    }
}

/// Which resources of a type.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// Whatever the proxy should have.
    All,
    Named(&'a [Arc<str>]),
}

/// Which resources of a type may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    Nothing,
    /// These, and none has come or gone but these.
    Named(Vec<Arc<str>>),
    Anything,
}

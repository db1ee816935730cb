//! Where objects come from: a directory, or a Kubernetes API server. Either is the store's one writer.

pub mod dir;
pub mod kubernetes;

use lateen_api::ObjectKey;

use crate::store::Note;
use dir::{Apply, WriteError, Written};

/// A running source; ends when dropped.
pub enum Source {
    Directory(dir::Source),
    Kubernetes(kubernetes::Source),
}

/// Why the API takes no objects where they live on a cluster.
const WRITE_THERE: &str = "the objects of this mesh live on a Kubernetes cluster: write them there, with kubectl";

impl Source {
    /// Whether objects can be written through it.
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Applies a text of objects, all or none of them.
    ///
    /// # Errors
    /// Mistakes in the text, a disk that does not take it, or a source that is not written this way.
    pub async fn apply(&self, apply: Apply) -> Result<Written, WriteError> {
        match self {
            Self::Directory(source) => source.apply(apply).await,
            Self::Kubernetes(_) => Err(WriteError::Failed(WRITE_THERE.to_owned())),
        }
    }

    /// Deletes objects. One that stands in a file stays deleted until its text there changes.
    ///
    /// # Errors
    /// A disk that does not take it, or a source that is not written this way.
    pub async fn delete(&self, keys: Vec<ObjectKey>) -> Result<Written, WriteError> {
        match self {
            Self::Directory(source) => source.delete(keys).await,
            Self::Kubernetes(_) => Err(WriteError::Failed(WRITE_THERE.to_owned())),
        }
    }

    /// What the control plane has to say itself; the store's one writer writes that, too. Gives the revision from which on it
    /// is in force; none when the source has ended.
    pub async fn note(&self, note: Note) -> Option<u64> {
        match self {
            Self::Directory(source) => source.note(note).await,
            Self::Kubernetes(source) => source.note(note).await,
        }
    }
}

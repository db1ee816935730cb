//! A resource as the server hands it out: encoded once, shared by every proxy that gets it.

use std::fmt;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;

/// Whatever keeps the encoded form of a resource.
pub trait Body: Send + Sync + 'static {
    fn any(&self) -> &Any;
}

impl Body for Any {
    fn any(&self) -> &Any {
        self
    }
}

impl<T: Body> Body for Arc<T> {
    fn any(&self) -> &Any {
        (**self).any()
    }
}

/// A named resource. Cloning shares.
#[derive(Clone)]
pub struct Resource {
    pub name: Arc<str>,
    /// Of the content: equal versions are equal resources.
    pub version: u64,
    body: Arc<dyn Body>,
    stand_in: bool,
}

impl Resource {
    pub fn new(name: impl Into<Arc<str>>, version: u64, body: impl Body) -> Self {
        Self { name: name.into(), version, body: Arc::new(body), stand_in: false }
    }

    /// What is said to a proxy that asks for something that does not exist (any more) and would wait for it. A proxy that has
    /// the resource keeps it, for as long as something of what it was given still names it.
    #[must_use]
    pub fn standing_in(self) -> Self {
        Self { stand_in: true, ..self }
    }

    pub(crate) fn is_stand_in(&self) -> bool {
        self.stand_in
    }

    pub fn any(&self) -> &Any {
        self.body.any()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.name, self.version)
    }
}

//! A resource as the server hands it out: encoded once, shared by every proxy that gets it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use envoy_types::pb::google::protobuf::Any;

use crate::references;

/// Whatever keeps the encoded form of a resource.
pub trait Body: Send + Sync + 'static {
    fn type_url(&self) -> &str;

    /// The encoded message, in the pieces that it is kept in.
    fn pieces(&self) -> &[Arc<[u8]>];

    /// Where it is remembered which names this makes a proxy ask for, so that it is found out once for all proxies.
    fn references(&self) -> &OnceLock<References>;
}

/// Names that a resource makes a proxy ask for.
pub type References = Box<[Arc<str>]>;

/// A body of its own.
struct Whole {
    type_url: String,
    value: [Arc<[u8]>; 1],
    references: OnceLock<References>,
}

impl Body for Whole {
    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn pieces(&self) -> &[Arc<[u8]>] {
        &self.value
    }

    fn references(&self) -> &OnceLock<References> {
        &self.references
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

    /// A resource that nothing else keeps.
    pub fn of_any(name: impl Into<Arc<str>>, version: u64, any: Any) -> Self {
        let value = [any.value.into()];
        Self::new(name, version, Whole { type_url: any.type_url, value, references: OnceLock::new() })
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

    pub fn type_url(&self) -> &str {
        self.body.type_url()
    }

    /// Bytes of the encoded message.
    pub(crate) fn len(&self) -> usize {
        self.body.pieces().iter().map(|piece| piece.len()).sum()
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        self.body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    /// The names that it makes a proxy ask for, each once.
    pub(crate) fn references(&self) -> &[Arc<str>] {
        self.body.references().get_or_init(|| {
            let names = references::referred_names(&self.to_any());
            names.into_iter().map(Arc::from).collect()
        })
    }

    pub fn to_any(&self) -> Any {
        Any { type_url: self.type_url().to_owned(), value: self.body.pieces().concat() }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.name, self.version)
    }
}

//! What came by discovery, as it came: kept in its encoded form, for the admin port alone, which decodes it when asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lateen_engine::config::Warming;
use lateen_engine::config::resources::{CLUSTER, LISTENER};
use lateen_engine::config::stats_log::StatsLog;
use lateen_xds::client::Upsert;
use memchr::memmem;

/// One version of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub version: String,
    pub body: Body,
    pub at: SystemTime,
}

/// An encoded message. Most of a listener that has metrics is their description, which all other listeners have, too: those
/// pieces are held once for all.
#[derive(Clone, Debug)]
pub(crate) struct Body(Arc<[Piece]>);

#[derive(Debug)]
enum Piece {
    Own(Box<[u8]>),
    Common(Arc<[u8]>),
}

impl Body {
    /// `common`: what is looked for in the message.
    fn new(message: &[u8], common: &[Arc<[u8]>]) -> Self {
        let mut places: Vec<(usize, &Arc<[u8]>)> = Vec::new();
        for piece in common.iter().filter(|piece| !piece.is_empty()) {
            places.extend(memmem::find_iter(message, piece).map(|at| (at, piece)));
        }
        places.sort_unstable_by_key(|(at, _)| *at);
        let mut pieces = Vec::with_capacity(2 * places.len() + 1);
        let mut end = 0;
        for (at, piece) in places.into_iter() {
            // One that stands inside of another is part of that.
            if at >= end {
                pieces.push(Piece::Own(message[end..at].into()));
                pieces.push(Piece::Common(Arc::clone(piece)));
                end = at + piece.len();
            }
        }
        pieces.push(Piece::Own(message[end..].into()));
        Self(pieces.into())
    }

    /// The message in one piece.
    pub(crate) fn whole(&self) -> Cow<'_, [u8]> {
        match &*self.0 {
            [Piece::Own(message)] => Cow::Borrowed(message),
            pieces => Cow::Owned(pieces.iter().flat_map(|piece| piece.bytes()).copied().collect()),
        }
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Common(bytes) => bytes,
        }
    }
}

/// The last attempt to update a resource, which failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub attempt: Version,
    pub reason: String,
}

/// A resource: what is in force, what waits for something it refers to, and what was refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    pub active: Option<Version>,
    pub warming: Option<Version>,
    pub failed: Option<Failure>,
}

/// The resources of a type, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfType {
    /// What the server called the whole last.
    pub version: String,
    pub resources: BTreeMap<String, Resource>,
}

/// Everything received. The control thread writes, the admin port reads.
#[derive(Debug, Default)]
pub(crate) struct Received(Mutex<BTreeMap<String, OfType>>);

impl Received {
    /// A copy of what there is of a type; bodies are shared.
    pub(crate) fn of(&self, type_url: &str) -> OfType {
        self.lock().get(type_url).cloned().unwrap_or_default()
    }

    /// Notes an update: each upsert with the reason why it was refused, if it was; then moves what does not wait any more
    /// (for its routes, for its endpoints) into force.
    pub(super) fn note(
        &self,
        (type_url, version): (&str, String),
        upserts: Vec<(Upsert, Option<String>)>,
        removals: &[String],
        warming: &Warming,
    ) {
        let at = SystemTime::now();
        let common = if type_url == LISTENER { StatsLog::sources() } else { Vec::new() };
        let mut types = self.lock();
        let of = types.entry(type_url.to_owned()).or_default();
        if !version.is_empty() {
            of.version = version;
        }
        for (upsert, refused) in upserts {
            let version = Version { version: upsert.version, body: Body::new(&upsert.body.value, &common), at };
            let resource = of.resources.entry(upsert.name).or_default();
            match refused {
                Some(reason) => resource.failed = Some(Failure { attempt: version, reason }),
                None => *resource = Resource { active: resource.active.take(), warming: Some(version), failed: None },
            }
        }
        for name in removals {
            of.resources.remove(name);
        }
        for (type_url, of) in types.iter_mut() {
            let waits = |name: &str| match type_url.as_str() {
                LISTENER => warming.listeners.contains(name),
                CLUSTER => warming.clusters.contains(name),
                _ => false,
            };
            for (name, resource) in &mut of.resources {
                if resource.warming.is_some() && !waits(name) {
                    resource.active = resource.warming.take();
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, OfType>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_was_received_and_holds_common_pieces_once() {
        let common: [Arc<[u8]>; 3] = [b"--common--"[..].into(), b"mm"[..].into(), b""[..].into()];
        let whole: [&[u8]; 5] =
            [b"", b"own", b"--common--", b"own--common--mm more --common--", b"--common----common--"];
        let pieces = [1, 1, 3, 7, 5];
        for (message, count) in whole.into_iter().zip(pieces) {
            let body = Body::new(message, &common);
            assert_eq!(body.whole(), message);
            assert_eq!(body.0.len(), count, "{}", message.escape_ascii());
        }
        let held = Body::new(b"own--common--", &common);
        let Piece::Common(piece) = &held.0[1] else { panic!("the second piece is a common one") };
        assert!(Arc::ptr_eq(piece, &common[0]));
    }
}

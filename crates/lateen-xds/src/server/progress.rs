//! How far a proxy has come, for people and for those who wait.

use std::sync::Arc;

/// What a stream's proxy has acknowledged and refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to this revision has been sent and answered, by an ACK or a NACK; 0 when nothing has, or when the
    /// proxy has not asked for listeners yet.
    pub settled: u64,
    /// The revision that is being sent.
    pub sending: u64,
    /// What the proxy refused and still has not got in a better version, oldest first.
    pub rejections: Vec<Rejection>,
    /// Resources that clusters and listeners name and the proxy has not asked for yet, the first few: type URL and name.
    pub awaited: Vec<(&'static str, Arc<str>)>,
    pub types: Vec<TypeProgress>,
}

/// A refused resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub type_url: Arc<str>,
    pub resource: Arc<str>,
    /// The proxy's words.
    pub message: String,
    /// The revision at which the refused version was sent.
    pub since: u64,
}

/// How one resource type stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeProgress {
    pub type_url: Arc<str>,
    /// Resources that the proxy has been given.
    pub resources: usize,
    /// The revision of the last response that was sent; 0 for none.
    pub sent: u64,
    /// The revision of the last response that was accepted; 0 for none.
    pub acknowledged: u64,
    /// A response has not been answered yet.
    pub waiting: bool,
}

/// Whether a revision is in force at a proxy.
#[derive(Debug, PartialEq, Eq)]
pub enum Live<'a> {
    Yes,
    NotYet,
    /// The proxy refused something that this revision (or a later one sent together with it) caused.
    Rejected(Vec<&'a Rejection>),
}

impl Progress {
    /// The highest revision of which everything, and everything before it, is in force.
    pub fn live_revision(&self) -> u64 {
        let refused = self.rejections.iter().map(|rejection| rejection.since).min();
        refused.map_or(self.settled, |since| self.settled.min(since.saturating_sub(1)))
    }

    /// Whether everything that `revision` caused is in force. What an earlier revision caused and the proxy refused does not
    /// count against it.
    pub fn of(&self, revision: u64) -> Live<'_> {
        let refused: Vec<_> = self.rejections.iter().filter(|rejection| rejection.since >= revision).collect();
        if !refused.is_empty() {
            Live::Rejected(refused)
        } else if self.settled >= revision {
            Live::Yes
        } else {
            Live::NotYet
        }
    }
}

//! `ListenerSet`: listeners that a team adds to a Gateway of another one.

use serde::{Deserialize, Serialize};

use super::gateway::Listener;
use super::references::ObjectReference;

/// The spec of a `ListenerSet`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerSet {
    /// A Gateway, which must let listeners of this namespace in (`allowedListeners`).
    pub parent_ref: ObjectReference,
    pub listeners: Vec<Listener>,
}

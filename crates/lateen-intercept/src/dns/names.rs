//! The table of names that the server answers itself.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What a name of the table stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses; several for a service without a ClusterIP.
    Addresses(Vec<Ipv4Addr>),
    /// Another name (a service of type ExternalName).
    Alias(String),
}

/// Names, without the dot at the end, in lower case; and the domain in which no other name exists.
#[derive(Debug, Clone, Default)]
pub struct Names {
    domain: String,
    entries: HashMap<String, Answer>,
}

impl Names {
    /// An empty table that is the authority for `domain` (`cluster.local`).
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.trim_end_matches('.').to_ascii_lowercase(), entries: HashMap::new() }
    }

    /// Adds a name. A second answer to the same name replaces the first.
    pub fn insert(&mut self, name: &str, answer: Answer) {
        self.entries.insert(name.trim_end_matches('.').to_ascii_lowercase(), answer);
    }

    /// Looks up a name that is in lower case and has no dot at its end.
    pub(crate) fn find(&self, name: &str) -> Found<'_> {
        if let Some(answer) = self.entries.get(name) {
            return Found::Known(answer);
        }
        let inside = name == self.domain || name.strip_suffix(&self.domain).is_some_and(|rest| rest.ends_with('.'));
        if inside && !self.domain.is_empty() { Found::NoSuchName } else { Found::Elsewhere }
    }
}

/// The result of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Known(&'a Answer),
    /// In our domain, and not there.
    NoSuchName,
    /// For the forwarder.
    Elsewhere,
}

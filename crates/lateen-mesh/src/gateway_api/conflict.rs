//! Listeners of one Gateway, and of the ListenerSets that it lets in, that cannot both be: the first one has the place. A
//! Gateway's own come first, in their order, then those of its sets, the oldest set first.

use std::collections::HashMap;

use lateen_api::gateway_api::gateway::Listener;
use lateen_api::gateway_api::{Gateway, ListenerSet};
use lateen_api::{ObjectKey, Resource};

/// Listeners that have lost their place, by owner and name, with the reason.
pub(super) type Conflicts = HashMap<(ObjectKey, String), &'static str>;

/// The port of a set's listener: one that is left out is that of its protocol.
pub(super) fn port_of(listener: &Listener) -> Option<u16> {
    match (listener.port, listener.protocol.as_str()) {
        (0, "HTTP") => Some(80),
        (0, "HTTPS") => Some(443),
        (0, _) => None,
        (port, _) => Some(port),
    }
}

/// `sets`: those that the Gateway lets in, the oldest first.
pub(super) fn find(gateway: &Resource<Gateway>, sets: &[&Resource<ListenerSet>]) -> Conflicts {
    let own = gateway.spec.listeners.iter().map(|listener| (gateway.key(), listener.port, listener));
    let of_sets = sets.iter().flat_map(|set| {
        set.spec.listeners.iter().map(|listener| (set.key(), port_of(listener).unwrap_or(0), listener))
    });
    let mut conflicts = Conflicts::new();
    let mut placed: Vec<(u16, &Listener)> = Vec::new();
    for (owner, port, listener) in own.chain(of_sets) {
        match placed.iter().find(|(other, before)| *other == port && collide(listener, before)) {
            Some((_, before)) => {
                conflicts.insert((owner, listener.name.clone()), reason(listener, before));
            }
            None => placed.push((port, listener)),
        }
    }
    conflicts
}

fn is_stream(listener: &Listener) -> bool {
    matches!(listener.protocol.as_str(), "TCP" | "UDP")
}

fn has_hosts(listener: &Listener) -> bool {
    matches!(listener.protocol.as_str(), "HTTP" | "HTTPS" | "TLS")
}

/// Of one port: whether connections cannot be told apart.
fn collide(a: &Listener, b: &Listener) -> bool {
    if has_hosts(a) && has_hosts(b) {
        return a.host() == b.host();
    }
    let known = |listener: &Listener| is_stream(listener) || has_hosts(listener);
    if known(a) && known(b) { true } else { a.protocol == b.protocol }
}

fn reason(a: &Listener, b: &Listener) -> &'static str {
    if (is_stream(a) && is_stream(b)) || a.protocol != b.protocol { "ProtocolConflict" } else { "HostnameConflict" }
}

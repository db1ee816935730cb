//! Conditions in the making: what is true of an object, and, where it is not, why.

use lateen_api::gateway_api::status::Condition;

/// Why something is not as it was meant to be; `reason` is one of the Gateway API's words where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Both: the first one's reason, both messages.
    pub(super) fn and(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(Self { message: format!("{}; {}", a.message, b.message), ..a }),
            (a, b) => a.or(b),
        }
    }
}

/// A condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Wanted {
    /// It holds, for a reason that is named like it, unless there is a fault.
    pub(super) fn unless(kind: &'static str, message: &str, fault: Option<&Fault>) -> Self {
        Self::because(kind, kind, message, fault)
    }

    /// The same for another reason.
    pub(super) fn because(kind: &'static str, reason: &str, message: &str, fault: Option<&Fault>) -> Self {
        match fault {
            None => Self { kind, holds: true, reason: reason.to_owned(), message: message.to_owned() },
            Some(fault) => Self { kind, holds: false, reason: fault.reason.to_owned(), message: fault.message.clone() },
        }
    }
}

/// Puts conditions among those that are there: each in its place, with its time if it was so before, other ones left alone.
pub(super) fn merge(
    there: &[Condition],
    mut wanted: Vec<Wanted>,
    generation: Option<i64>,
    now: &str,
) -> Vec<Condition> {
    wanted.sort_by_key(|condition| condition.kind);
    let mut out = there.to_vec();
    for Wanted { kind, holds, reason, message } in wanted {
        let mut next = Condition {
            kind: kind.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason,
            message,
            last_transition_time: now.to_owned(),
            observed_generation: generation.filter(|generation| *generation != 0),
        };
        match out.iter_mut().find(|condition| condition.kind == kind) {
            None => out.push(next),
            Some(present) => {
                if present.status == next.status {
                    next.last_transition_time.clone_from(&present.last_transition_time);
                }
                *present = next;
            }
        }
    }
    out
}

/// `a`, `a and b`, `a, b, and c`.
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [a, b] => format!("{a} and {b}"),
        [all @ .., last] => format!("{}, and {last}", all.join(", ")),
    }
}

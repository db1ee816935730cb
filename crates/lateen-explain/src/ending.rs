//! What the caller gets, added up over all ways that a request can take.

use crate::journey::{Answer, Branch, Ending, Leg, Outcome};

/// Of all requests, as they come back to who asked; `http` says whether it speaks HTTP, and gets answers to its requests.
pub(crate) fn of(leg: &Leg, http: bool) -> Vec<Ending> {
    let mut endings: Vec<Ending> = Vec::new();
    for ending in at(leg, 1.0, http) {
        let same = |known: &&mut Ending| Ending { share: ending.share, ..(**known).clone() } == ending;
        match endings.iter_mut().find(same) {
            Some(known) => known.share += ending.share,
            None => endings.push(ending),
        }
    }
    endings.retain(|ending| ending.share > 0.0);
    endings.sort_by(|a, b| b.share.total_cmp(&a.share));
    endings
}

fn at(leg: &Leg, share: f64, http: bool) -> Vec<Ending> {
    let mut endings = Vec::new();
    let mut left = share;
    if let Some((part, status)) = leg.fault.as_ref().and_then(|fault| fault.abort) {
        let why = "a fault on purpose".to_owned();
        endings.push(Ending { why, status: Some(status), ..nobody(share * part) });
        left -= share * part;
    }
    match &leg.outcome {
        Outcome::Answered(answer) => endings.push(answered(answer, left)),
        Outcome::Closed { why, .. } => endings.push(Ending { why: why.clone(), ..nobody(left) }),
        Outcome::Delivered { .. } => endings.push(Ending {
            served_by: Some(leg.at.to_string()),
            why: "the application answers".to_owned(),
            ..nobody(left)
        }),
        Outcome::Left { to } => {
            let why = "whoever is there answers".to_owned();
            endings.push(Ending { served_by: Some(to.clone()), why, ..nobody(left) });
        }
        Outcome::Sent { branches } => {
            let through = branches.iter().flat_map(|branch| of_branch(branch, left * branch.share, http));
            endings.extend(through.map(|ending| come_back(leg, ending, http)));
        }
    }
    endings
}

fn of_branch(branch: &Branch, share: f64, http: bool) -> Vec<Ending> {
    match &branch.failure {
        Some(answer) => vec![answered(answer, share)],
        None => branch.next.iter().flat_map(|next| at(&next.leg, share * next.share, http)).collect(),
    }
}

/// A proxy that reads HTTP answers for a host that does not.
fn come_back(leg: &Leg, ending: Ending, http: bool) -> Ending {
    let reads_http = http && leg.forwarding.is_some();
    match ending {
        Ending { served_by: None, status: None, .. } if reads_http => Ending { status: Some(503), ..ending },
        other => other,
    }
}

fn answered(answer: &Answer, share: f64) -> Ending {
    Ending {
        // Of connections, there is no status.
        status: Some(answer.status).filter(|status| *status > 0),
        why: answer.why.clone(),
        location: answer.location.clone(),
        policy: answer.policy.clone(),
        ..nobody(share)
    }
}

fn nobody(share: f64) -> Ending {
    Ending { share, served_by: None, status: None, why: String::new(), location: None, policy: None }
}

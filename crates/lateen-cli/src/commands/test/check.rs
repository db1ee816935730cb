//! What a test expects, beside what becomes of its request.

use std::collections::BTreeMap;

use lateen_explain::journey::{Branch, Ending, Journey, Leg, Outcome, Role, Stage};

use super::file::Expectation;
use crate::runtime::excerpt::shown_path;

/// Shares may differ by so many points: those of hosts are drawn.
const TOLERANCE: f64 = 3.0;

/// What is not as expected, a sentence each, with the lines that are behind it.
pub(super) fn differences(expected: &Expectation, journey: &Journey) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, wanted: String, found: String, stage: Option<Stage>| {
        let places = stage.map(|stage| places(journey, stage)).unwrap_or_default();
        all.push(format!("{what}: expected {wanted}, found {found}{places}"));
    };
    let first = &journey.first;
    let denied: Vec<&Ending> = journey.results.iter().filter(|ending| is_denied(ending)).collect();
    if let Some(wanted) = expected.allowed
        && wanted != denied.is_empty()
    {
        let found = denied.first().map_or_else(|| "allowed".to_owned(), |ending| format!("denied: {}", ending.why));
        differ("allowed", wanted.to_string(), found, Some(Stage::Policy));
    }
    if let Some(wanted) = &expected.denied_by {
        let found = denied.iter().find_map(|ending| ending.policy.clone());
        if found.as_ref() != Some(wanted) {
            differ("deniedBy", wanted.clone(), found.unwrap_or_else(|| "nobody".to_owned()), Some(Stage::Policy));
        }
    }
    if let Some(wanted) = &expected.allowed_by {
        let legs = first.all();
        let verdicts = legs.iter().flat_map(|leg| &leg.verdicts);
        let mut allow = verdicts.filter(|it| it.action == "ALLOW" && it.rule.is_some()).map(|it| &it.policy);
        if !allow.any(|policy| policy == wanted) {
            differ("allowedBy", wanted.clone(), "that it is not".to_owned(), Some(Stage::Policy));
        }
    }
    if let Some(wanted) = expected.status
        && !journey.results.iter().any(|ending| ending.status == Some(wanted))
    {
        differ("status", wanted.to_string(), told(&journey.results), Some(Stage::Route));
    }
    if let Some(wanted) = &expected.served_by {
        let found = shares(journey.results.iter().filter_map(|it| Some((owner(it.served_by.as_ref()?), it.share))));
        if !same(wanted, &found) {
            differ("servedBy", listed(wanted), listed(&found), Some(Stage::Route));
        }
    }
    if let Some(wanted) = &expected.routed_to {
        let found = shares(branches(first).map(|branch| (target(branch), branch.share)));
        if !same(wanted, &found) {
            differ("routedTo", listed(wanted), listed(&found), Some(Stage::Route));
        }
    }
    for (name, wanted) in expected.headers.iter().flatten() {
        for head in branches(first).filter_map(|branch| branch.head.as_ref()) {
            let found = head.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            if found != wanted.as_ref() {
                let shown =
                    |value: Option<&String>| value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
                differ(&format!("header {name}"), shown(wanted.as_ref()), shown(found), Some(Stage::Route));
            }
        }
    }
    for head in branches(first).filter_map(|branch| branch.head.as_ref()) {
        for (what, wanted, found) in [("path", &expected.path, &head.path), ("host", &expected.host, &head.host)] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                differ(what, wanted.clone(), found.clone(), Some(Stage::Route));
            }
        }
    }
    if let Some(wanted) = &expected.timeout {
        let found = first.forwarding.as_ref().and_then(|forwarding| forwarding.timeout);
        let found = found.map_or_else(|| "none".to_owned(), |timeout| format!("{:?}", timeout.0));
        if *wanted != found {
            differ("timeout", wanted.clone(), found, Some(Stage::Route));
        }
    }
    if let Some(wanted) = expected.retries {
        let found = first.forwarding.as_ref().map_or(0, |forwarding| forwarding.retries);
        if wanted != found {
            differ("retries", wanted.to_string(), found.to_string(), Some(Stage::Route));
        }
    }
    if let Some(wanted) = &expected.redirect {
        let found = journey.results.iter().find_map(|ending| ending.location.clone());
        if found.as_ref() != Some(wanted) {
            differ("redirect", wanted.clone(), found.unwrap_or_else(|| "none".to_owned()), Some(Stage::Route));
        }
    }
    let fault = first.fault.as_ref();
    for (what, wanted, found) in [
        ("aborted", expected.aborted, fault.and_then(|it| it.abort).map_or(0.0, |it| it.0)),
        ("delayed", expected.delayed, fault.and_then(|it| it.delay).map_or(0.0, |it| it.0)),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| (wanted - found * 100.0).abs() > 0.01) {
            differ(what, format!("{wanted} %"), format!("{:.2} %", found * 100.0), Some(Stage::Route));
        }
    }
    if let Some(wanted) = expected.mutual_tls {
        let found = plaintext(journey).is_none();
        if wanted != found {
            differ("mutualTls", wanted.to_string(), found.to_string(), Some(Stage::Tls));
        }
    }
    all
}

/// Whether a rule about who may stands against it.
pub(super) fn is_denied(ending: &Ending) -> bool {
    ending.policy.is_some()
        || ending.status == Some(403)
        || ending.served_by.is_none() && ending.why.contains("mTLS is STRICT")
}

/// A workload of the mesh that is reached in plaintext, with where that is decided.
pub(super) fn plaintext(journey: &Journey) -> Option<String> {
    let legs = journey.first.all();
    legs.into_iter()
        .filter(|leg| leg.role == Role::Server && matches!(leg.outcome, Outcome::Delivered { .. }))
        .find_map(|leg| {
            let tls = leg.steps.iter().find(|step| step.stage == Stage::Tls);
            let mutual = tls.is_some_and(|step| step.said.starts_with("mutual TLS ends here"));
            (!mutual).then(|| leg.at.to_string())
        })
}

fn branches(leg: &Leg) -> impl Iterator<Item = &Branch> {
    let all = match &leg.outcome {
        Outcome::Sent { branches } => branches.as_slice(),
        _ => &[],
    };
    all.iter()
}

/// `reviews/v2`, without the rest of the name where that is a cluster's.
fn target(branch: &Branch) -> String {
    let host = branch.host.split_once(".svc.").map_or(branch.host.as_str(), |(name, _)| name);
    if branch.subset.is_empty() { host.to_owned() } else { format!("{host}/{}", branch.subset) }
}

/// Pods are called after what owns them, as files have it: `reviews-v1-0.default` is of `reviews-v1.default`.
fn owner(pod: &str) -> String {
    match pod.split_once('.') {
        Some((pod, namespace)) => match pod.rsplit_once('-') {
            Some((owner, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("{owner}.{namespace}"),
            _ => format!("{pod}.{namespace}"),
        },
        None => pod.to_owned(),
    }
}

fn shares(all: impl Iterator<Item = (String, f64)>) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    all.for_each(|(name, share)| *shares.entry(name).or_default() += share * 100.0);
    shares
}

/// Names may leave out the namespace, or the rest of a host.
fn same(wanted: &BTreeMap<String, f64>, found: &BTreeMap<String, f64>) -> bool {
    let is = |wanted: &str, found: &str| {
        let short = |name: &str| {
            let (host, subset) = name.split_once('/').unwrap_or((name, ""));
            format!("{}/{subset}", host.split('.').next().unwrap_or_default())
        };
        wanted == found
            || (!wanted.split('/').next().unwrap_or_default().contains('.') && short(wanted) == short(found))
    };
    wanted.len() == found.len()
        && wanted.iter().all(|(name, share)| {
            found.iter().any(|(known, other)| is(name, known) && (share - other).abs() <= TOLERANCE)
        })
}

fn listed(shares: &BTreeMap<String, f64>) -> String {
    let parts: Vec<String> = shares.iter().map(|(name, share)| format!("{name} {share:.0} %")).collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

/// `403: the policy default/x denies it`.
pub(super) fn told(results: &[Ending]) -> String {
    let one = |ending: &Ending| match (&ending.served_by, ending.status) {
        (Some(who), _) => format!("the answer of {who}"),
        (None, Some(status)) => format!("{status} ({})", ending.why),
        (None, None) => format!("no answer ({})", ending.why),
    };
    results.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Where that was decided, ` (reviews.yaml:12)`.
fn places(journey: &Journey, stage: Stage) -> String {
    let legs = journey.first.all();
    let steps = legs.iter().flat_map(|leg| &leg.steps).filter(|step| step.stage == stage);
    let mut all: Vec<String> = steps
        .flat_map(|step| &step.places)
        .filter(|place| !place.file.is_empty())
        .map(|place| format!("{}:{}", shown_path(&place.file), place.line))
        .collect();
    all.dedup();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_short_and_shares_nearly_right() {
        let of = |all: &[(&str, f64)]| all.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        let found: BTreeMap<String, f64> = of(&[("reviews.default/v1", 89.0), ("reviews.default/v2", 11.0)]);
        assert!(same(&of(&[("reviews/v1", 90.0), ("reviews/v2", 10.0)]), &found));
        assert!(same(&of(&[("reviews.default/v1", 89.0), ("reviews/v2", 10.0)]), &found));
        assert!(!same(&of(&[("reviews.shop/v1", 89.0), ("reviews/v2", 10.0)]), &found));
        assert!(!same(&of(&[("reviews/v1", 80.0), ("reviews/v2", 20.0)]), &found));
        assert!(!same(&of(&[("reviews/v1", 100.0)]), &found));
        assert_eq!(owner("reviews-v1-0.default"), "reviews-v1.default");
        assert_eq!(owner("web.default"), "web.default");
    }
}

//! Rules of a VirtualService that no request reaches, and matches that others cover.
//!
//! Which ones is Istio's to say (`analyzeUnreachableHTTPRules` of its validation): equal matches, rules after one without
//! matches, and prefixes that a shorter one before covers.

use std::collections::HashMap;

use serde_json::Value;

use crate::document::{Document, items, text};
use crate::report::Report;
use crate::world::{NETWORKING, World};

const UNREACHABLE: &str = "IST0130";
const INEFFECTIVE: &str = "IST0131";

pub(super) fn check(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "VirtualService") {
        for protocol in ["http", "tcp", "tls"] {
            duplicates(document, protocol, report);
        }
        covered(document, report);
    }
}

/// What a rule or a match is called: its name, else its number.
fn named(value: &Value, index: usize) -> String {
    match text(&value["name"]) {
        "" => format!("#{index}"),
        name => format!("`{name}`"),
    }
}

fn duplicates(document: &Document, protocol: &str, report: &mut Report) {
    let rules = items(&document.spec()[protocol]);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut catch_all: Option<usize> = None;
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("spec.{protocol}[{index}]");
        let matches = items(&rule["match"]);
        let mut equal = 0;
        if matches.is_empty() {
            if let Some(before) = catch_all {
                let message = format!(
                    "rule {} is never reached: rule {} takes everything",
                    named(rule, index),
                    named(&rules[before], before)
                );
                report.add(document, UNREACHABLE, &field, message);
            }
            catch_all = Some(index);
            continue;
        }
        for (at, one) in matches.iter().enumerate() {
            let field = format!("{field}.match[{at}]");
            if let Some(before) = catch_all {
                let message = format!(
                    "rule {} is never reached: rule {} takes everything",
                    named(rule, index),
                    named(&rules[before], before)
                );
                report.add(document, UNREACHABLE, &field, message);
            } else if let Some(before) = seen.get(&content(one)) {
                let message = format!(
                    "match {} of rule {} has no effect: rule {} has the same",
                    named(one, at),
                    named(rule, index),
                    named(&rules[*before], *before)
                );
                report.add(document, INEFFECTIVE, &field, message);
                equal += 1;
            } else {
                seen.insert(content(one), index);
            }
        }
        if equal == matches.len() {
            let message =
                format!("rule {} is never reached: rules before it have all of its matches", named(rule, index));
            report.add(document, UNREACHABLE, &field, message);
        }
    }
}

/// A match without its name.
fn content(one: &Value) -> String {
    let mut one = one.clone();
    if let Some(fields) = one.as_object_mut() {
        fields.remove("name");
    }
    one.to_string()
}

/// A match by prefix, as far as another's prefix is compared with it.
struct Prefix<'a> {
    rule: usize,
    at: usize,
    prefix: &'a str,
    value: &'a Value,
}

/// Prefixes after a shorter one that asks for nothing else.
fn covered(document: &Document, report: &mut Report) {
    let rules = items(&document.spec()["http"]);
    let catch_all = rules.iter().position(|rule| items(&rule["match"]).is_empty()).unwrap_or(rules.len());
    let mut seen: Vec<String> = Vec::new();
    let mut prefixes: Vec<Prefix<'_>> = Vec::new();
    for (rule, value) in rules[..catch_all].iter().enumerate() {
        for (at, value) in items(&value["match"]).iter().enumerate() {
            let prefix = text(&value["uri"]["prefix"]);
            if !prefix.is_empty() && !seen.contains(&content(value)) {
                prefixes.push(Prefix { rule, at, prefix, value });
            }
            seen.push(content(value));
        }
    }
    for (index, first) in prefixes.iter().enumerate() {
        for later in prefixes[index + 1..].iter().filter(|later| later.prefix != first.prefix) {
            if covers(first, later) {
                let message = format!(
                    "match {} of rule {} has no effect: prefix `{}` of rule {} takes what begins with `{}`",
                    named(later.value, later.at),
                    named(&rules[later.rule], later.rule),
                    first.prefix,
                    named(&rules[first.rule], first.rule),
                    later.prefix
                );
                report.add(document, INEFFECTIVE, &format!("spec.http[{}].match[{}]", later.rule, later.at), message);
            }
        }
    }
}

fn covers(first: &Prefix<'_>, later: &Prefix<'_>) -> bool {
    let wider = |a: &str, b: &str| a == b || a.starts_with(b);
    let wider_map = |field: &str| {
        let of = |value: &Value| value[field].as_object().cloned().unwrap_or_default();
        let (a, b) = (of(first.value), of(later.value));
        a.len() == b.len()
            && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| wider(&pattern(value), &pattern(other))))
    };
    // Without a method, Istio's analyzer takes a match to be for GET.
    let method = |value: &Value| match pattern(&value["method"]) {
        pattern if pattern.is_empty() => "exact GET".to_owned(),
        pattern => pattern,
    };
    later.prefix.starts_with(first.prefix)
        && first.value["port"] == later.value["port"]
        && wider(&method(first.value), &method(later.value))
        && wider(&pattern(&first.value["authority"]), &pattern(&later.value["authority"]))
        && ["headers", "queryParams", "withoutHeaders"].into_iter().all(wider_map)
}

/// A StringMatch as text that can be compared; regular expressions and absent ones are empty.
fn pattern(value: &Value) -> String {
    match (text(&value["exact"]), text(&value["prefix"])) {
        ("", "") => String::new(),
        ("", prefix) => format!("prefix {prefix}"),
        (exact, _) => format!("exact {exact}"),
    }
}

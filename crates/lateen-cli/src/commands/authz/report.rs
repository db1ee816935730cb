//! The policies and the verdict, for people and as JSON.

use lateen_translate::{AuthorizationView, EffectivePolicy};
use serde_json::{Value, json};

use super::verdict::Verdict;
use crate::commands::columns::columns;
use crate::runtime::paint::{ERROR, PLAIN};

pub(super) fn table(view: &AuthorizationView, verdict: Option<&Verdict>) {
    anstream::println!("{}.{} ({}, {})", view.pod, view.namespace, view.address, view.principal);
    if view.policies.is_empty() {
        anstream::println!("No policy holds for it: everything is allowed.");
    } else {
        let rows: Vec<Vec<String>> = view.policies.iter().flat_map(rows).collect();
        anstream::println!("\n{}", columns(&["ACTION", "POLICY", "RULE", "SPEAKS OF", "AT"], &rows));
    }
    let Some(verdict) = verdict else { return };
    let place = verdict.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
    let rule = verdict.rule.map(|rule| format!(", rule {rule}")).unwrap_or_default();
    if verdict.allowed {
        anstream::println!("\nALLOWED: {}{rule}{place}", verdict.reason);
    } else {
        anstream::println!("\n{ERROR}DENIED:{PLAIN} {}{rule}{place}", verdict.reason);
    }
    for note in &verdict.notes {
        anstream::println!("  {note}");
    }
}

/// A line for each rule; one for a policy that has none.
fn rows(policy: &EffectivePolicy) -> Vec<Vec<String>> {
    let tried = if policy.dry_run { " (dry run)" } else { "" };
    let asked = if policy.provider.is_empty() { String::new() } else { format!(" ({})", policy.provider) };
    let action = format!("{}{tried}{asked}", policy.action);
    let name = format!("{}/{}", policy.namespace, policy.name);
    let at = |line: u32| if policy.file.is_empty() { "-".to_owned() } else { format!("{}:{line}", policy.file) };
    if policy.rules.is_empty() {
        return vec![vec![action, name, "-".to_owned(), "nothing".to_owned(), at(policy.line)]];
    }
    let numbered = policy.rules.iter().enumerate();
    numbered
        .map(|(number, rule)| vec![action.clone(), name.clone(), number.to_string(), rule.words.clone(), at(rule.line)])
        .collect()
}

pub(super) fn json(view: &AuthorizationView, verdict: Option<&Verdict>) -> Value {
    json!({
        "pod": view.pod,
        "namespace": view.namespace,
        "address": view.address,
        "principal": view.principal,
        "policies": view.policies,
        "verdict": verdict,
    })
}

//! The API's kinds against texts: real samples, mistakes with their places, rules, hostile input.

mod definitions;
mod fields;
mod hostile;
mod mesh_config;
mod mistakes;
mod reading;
mod rules;
mod samples;

use lateen_api::{Diagnostic, Object, Severity, parse_documents, validate};

/// The only object of a text that has no mistakes.
fn object(text: &str) -> Object {
    let parsed = parse_documents("test.yaml", text, "default");
    assert_eq!(parsed.diagnostics, [], "{text}");
    let [object] = parsed.objects.as_slice() else { panic!("one object in {text}") };
    object.clone()
}

/// `error spec.http[0]: message`.
fn brief(found: &Diagnostic) -> String {
    let severity = if found.severity == Severity::Error { "error" } else { "warning" };
    format!("{severity} {}: {}", found.field, found.message)
}

/// What parsing and validation say about a text, each as `line: severity field: message`.
fn findings(text: &str) -> Vec<String> {
    let parsed = parse_documents("test.yaml", text, "default");
    let mut found = parsed.diagnostics;
    found.extend(parsed.objects.iter().flat_map(validate));
    found.iter().map(|found| format!("{}: {}", found.line, brief(found))).collect()
}

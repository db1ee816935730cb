//! The rules that one object must keep: each against an object that breaks it.

mod kubernetes;
mod policy;
mod routing;
mod security;
mod support;
mod traffic;

use crate::{brief, object};

/// An object of a kind with this spec, given as one YAML flow mapping.
fn text(kind: &str, spec: &str) -> String {
    let kind: lateen_api::Kind = kind.parse().expect("it is a kind");
    format!("apiVersion: {}\nkind: {kind}\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n", kind.api_version())
}

/// What validation says of such an object, without what is not honoured yet.
fn broken(kind: &str, spec: &str) -> Vec<String> {
    let object = object(&text(kind, spec));
    lateen_api::validate(&object).iter().filter(|found| found.code != "LAT0005").map(brief).collect()
}

/// Each spec gives exactly these findings, none for the good ones.
fn table(kind: &str, cases: &[(&str, &[&str])]) {
    for (spec, expected) in cases {
        assert_eq!(broken(kind, spec), *expected, "{spec}");
    }
}

//! Checks across objects: what each says of the others, and where they get in each other's way.
//!
//! The findings tell the user before the traffic does. What they mean for what is in force is [`crate::InForce`]'s.

mod authorization;
pub(crate) mod codes;
mod conflicts;
mod egress;
mod ejection;
mod gateway_api;
mod gateways;
mod locality;
mod reach;
mod references;
mod selectors;
mod sidecars;
mod telemetry;

use lateen_api::{Diagnostic, KindSpec, Object, Resource, Severity};

use crate::mesh::Mesh;

pub(crate) use references::missing;

/// All findings about `objects`, of which `mesh` was built, by file, line and field.
pub fn analyze<'a>(objects: impl IntoIterator<Item = &'a Object>, mesh: &Mesh) -> Vec<Diagnostic> {
    let inputs = crate::inputs::Inputs::new(objects);
    let mut findings = Findings::default();
    authorization::check(&inputs, mesh, &mut findings);
    references::check(&inputs, mesh, &mut findings);
    conflicts::check(&inputs, mesh, &mut findings);
    egress::check(&inputs, mesh, &mut findings);
    ejection::check(&inputs, mesh, &mut findings);
    gateway_api::check(&inputs, mesh, &mut findings);
    gateways::check(&inputs, mesh, &mut findings);
    locality::check(&inputs, mesh, &mut findings);
    reach::check(&inputs, mesh, &mut findings);
    selectors::check(&inputs, mesh, &mut findings);
    sidecars::check(&inputs, mesh, &mut findings);
    telemetry::check(&inputs, mesh, &mut findings);
    let mut out = findings.0;
    out.sort_by(|a, b| {
        (&a.file, a.line, &a.object, &a.field, &a.code).cmp(&(&b.file, b.line, &b.object, &b.field, &b.code))
    });
    out
}

/// Findings so far.
#[derive(Default)]
struct Findings(Vec<Diagnostic>);

impl Findings {
    /// Reports something about a field of an object; `help`: what to do about it, if there is one thing.
    fn add<K: KindSpec>(
        &mut self,
        resource: &Resource<K>,
        code: codes::Code,
        field: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let (line, column) = resource.position_of(field);
        self.0.push(Diagnostic {
            code: code.name.to_owned(),
            severity: code.severity,
            object: Some(resource.key().into()),
            file: resource.origin.file.to_string(),
            line,
            column,
            field: field.to_owned(),
            message: message.into(),
            help,
        });
    }
}

/// The name that is most like `wanted`, if any is like it at all.
fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 4))
        .min()
        .map(|(_, name)| name)
}

/// Edits between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(left != *right)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// A help line for a name that nearly exists.
fn did_you_mean<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(wanted, known).map(|name| format!("did you mean `{name}`?"))
}

const ERROR: Severity = Severity::Error;
const WARNING: Severity = Severity::Warning;
const INFO: Severity = Severity::Info;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let known = || ["reviews", "ratings", "details"].into_iter();
        assert_eq!(nearest("reveiws", known()), Some("reviews"));
        assert_eq!(nearest("rating", known()), Some("ratings"));
        assert_eq!(nearest("productpage", known()), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

//! The objects that configure the mesh: listed with what is wrong with them, and shown as their author wrote them.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use lateen_api::diagnostic::Subject;
use lateen_api::parse::MAX_TEXT;
use lateen_api::{Diagnostic, Kind, Object, Severity, parse_documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inventory::ObjectRef;
use super::{Api, Failure};
use crate::store::Stored;

/// What there is too much of, and what is no configuration.
const NOT_LISTED: [Kind; 1] = [Kind::Pod];

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listing {
    pub(super) revision: u64,
    pub(super) objects: Vec<ObjectEntry>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ObjectEntry {
    #[serde(flatten)]
    pub(super) object: ObjectRef,
    /// The revision that it came with.
    pub(super) revision: u64,
    pub(super) errors: usize,
    pub(super) warnings: usize,
}

/// An object as its author wrote it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(flatten)]
    pub(super) object: ObjectRef,
    pub(super) revision: u64,
    /// YAML: of the file where it stands in one that can be read, comments and all; else made of what is in force.
    pub(super) text: String,
    /// The line of the file that the text begins with; 0: the text is of no file.
    pub(super) first_line: u32,
    /// Findings about it; lines are those of the file.
    #[schema(value_type = Vec<super::openapi::Finding>)]
    pub(super) findings: Vec<Diagnostic>,
}

/// `GET /api/v1/config`
#[utoipa::path(get, path = "/api/v1/config", operation_id = "listObjects", responses((status = 200, body = Listing)))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Listing> {
    let (_, findings) = api.findings().await;
    let contents = api.store.contents();
    let mut counts: HashMap<&Subject, (usize, usize)> = HashMap::new();
    for found in &findings {
        let Some(object) = &found.object else { continue };
        let (errors, warnings) = counts.entry(object).or_default();
        match found.severity {
            Severity::Error => *errors += 1,
            Severity::Warning => *warnings += 1,
            Severity::Info => {}
        }
    }
    let entry = |stored: &Stored| {
        let (errors, warnings) = counts.get(&Subject::from(&stored.key)).copied().unwrap_or_default();
        ObjectEntry { object: ObjectRef::from(&stored.object), revision: stored.revision, errors, warnings }
    };
    let listed = contents.stored().filter(|stored| !NOT_LISTED.contains(&stored.key.kind));
    Json(Listing { revision: contents.revision, objects: listed.map(entry).collect() })
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

/// `GET /api/v1/config/object?kind=K&namespace=N&name=X`
#[utoipa::path(get, path = "/api/v1/config/object", operation_id = "showObject", params(("kind" = String, Query), ("namespace" = Option<String>, Query), ("name" = String, Query)),
    responses((status = 200, body = Written), (status = 404, body = super::Complaint)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Query(wanted): Query<Wanted>) -> Result<Json<Written>, Failure> {
    let kind: Kind = wanted.kind.parse().map_err(Failure::BadRequest)?;
    let contents = api.store.contents();
    let stored = contents.stored_at(kind, &wanted.namespace, &wanted.name);
    let missing = || Failure::NotFound(format!("there is no {kind} {}/{}", wanted.namespace, wanted.name));
    let stored = stored.ok_or_else(missing)?.clone();
    let (_, mut findings) = api.findings().await;
    let subject = Subject::from(&stored.key);
    findings.retain(|found| found.object.as_ref() == Some(&subject));
    let object = stored.object.clone();
    let read = tokio::task::spawn_blocking(move || text(&object)).await;
    let (text, first_line) = read.map_err(|error| Failure::Internal(error.to_string()))?;
    Ok(Json(Written { object: ObjectRef::from(&stored.object), revision: stored.revision, text, first_line, findings }))
}

/// The text of an object, and the line that it begins with.
fn text(object: &Object) -> (String, u32) {
    // What a Secret's file holds is nobody's to read here.
    let of_file = if object.kind() == Kind::Secret { None } else { of_file(object) };
    of_file.unwrap_or_else(|| {
        let made = lateen_xds::json::to_yaml(&object.to_shown_json());
        (made.unwrap_or_else(|error| format!("# {error}\n")), 0)
    })
}

/// Of the file that it stands in, if the document there still is this object.
fn of_file(object: &Object) -> Option<(String, u32)> {
    let origin = object.origin();
    if origin.line == 0 {
        return None;
    }
    let mut whole = String::new();
    let file = std::fs::File::open(Path::new(&*origin.file)).ok()?;
    file.take(u64::try_from(MAX_TEXT).ok()?).read_to_string(&mut whole).ok()?;
    let (text, first) = document(&whole, usize::try_from(origin.line).ok()?)?;
    let same = |it: &Object| it.key() == object.key();
    let is_alone = parse_documents(&origin.file, &text, object.namespace()).objects;
    // A List in a file holds others, too, which may be Secrets.
    (is_alone.len() == 1 && is_alone.iter().all(same)).then_some((text, u32::try_from(first).ok()?))
}

/// The YAML document around a line (from 1), and its first line.
fn document(whole: &str, line: usize) -> Option<(String, usize)> {
    let lines: Vec<&str> = whole.lines().collect();
    if line > lines.len() {
        return None;
    }
    let parts = |text: &&str| text.starts_with("---");
    let before = lines[..line - 1].iter().rposition(parts).map_or(0, |at| at + 1);
    let first = if lines.get(line - 1).is_some_and(parts) { line } else { before };
    let length = lines[first..].iter().position(parts).unwrap_or(lines.len() - first);
    let mut own = &lines[first..first + length];
    while let [rest @ .., last] = own
        && last.trim().is_empty()
    {
        own = rest;
    }
    (!own.is_empty()).then(|| (own.join("\n") + "\n", first + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_what_stands_between_the_dashes() {
        let text = "# first\na: 1\n---\nb: 2\n# and more\n\n---\nc: 3\n";
        let of = |line| document(text, line);
        assert_eq!(of(2), Some(("# first\na: 1\n".to_owned(), 1)));
        assert_eq!(of(3), Some(("b: 2\n# and more\n".to_owned(), 4)), "as an origin may say it");
        assert_eq!(of(4), Some(("b: 2\n# and more\n".to_owned(), 4)));
        assert_eq!(of(8), Some(("c: 3\n".to_owned(), 8)));
        assert_eq!(of(9), None);
    }

    #[test]
    fn an_object_is_shown_as_written_and_a_secret_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a # by hand\n";
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hidden}\n";
        let whole = format!("{account}---\n{secret}");
        std::fs::write(&path, &whole).expect("it can be written");
        let objects = parse_documents(&path.display().to_string(), &whole, "default").objects;
        let texts: Vec<_> = objects.iter().map(text).collect();
        assert_eq!(texts[0], (account.to_owned(), 1));
        assert!(texts[1].1 == 0 && !texts[1].0.contains("hidden"), "{}", texts[1].0);
        std::fs::write(&path, "something: else\n").expect("it can be written");
        assert_eq!(text(&objects[0]).1, 0, "the file says something else by now");
    }
}

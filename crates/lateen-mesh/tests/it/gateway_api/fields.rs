//! Every field of the Gateway API does what the table in `lateen_api::support` says of it: without it, something else is made of
//! the cases in `tests/gateway_api`, or they get another status; and whoever writes what is not honoured is told.

use lateen_api::support::{GATEWAY_API, Standing};
use lateen_api::{Kind, parse_documents, validate};
use serde_json::Value;

use super::case::{documents, outcome};
use super::own::folder;

/// A step into a document.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    At(usize),
}

/// All places of a document that a row's path fits: `[]` is any entry, `*` any key.
fn places(value: &Value, pattern: &str, at: &[Step], out: &mut Vec<Vec<Step>>) {
    if pattern.is_empty() {
        out.push(at.to_vec());
        return;
    }
    if let Some(rest) = pattern.strip_prefix("[]") {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            places(item, rest, &[at, &[Step::At(index)]].concat(), out);
        }
        return;
    }
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern);
    let (name, rest) = pattern.split_at(pattern.find(['.', '[']).unwrap_or(pattern.len()));
    for (key, value) in value.as_object().into_iter().flatten() {
        if name == "*" || key == name {
            places(value, rest, &[at, &[Step::Key(key.clone())]].concat(), out);
        }
    }
}

fn without(mut document: Value, place: &[Step]) -> Value {
    let Some((last, way)) = place.split_last() else { return document };
    let mut inside = &mut document;
    for step in way {
        inside = match step {
            Step::Key(key) => &mut inside[key],
            Step::At(index) => &mut inside[*index],
        };
    }
    match (last, inside) {
        (Step::Key(key), Value::Object(fields)) => drop(fields.remove(key)),
        (Step::At(index), Value::Array(items)) => drop(items.remove(*index)),
        _ => unreachable!("the way was found in it"),
    }
    document
}

fn is_of(document: &Value, kind: Kind) -> bool {
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    Kind::of(&text("apiVersion"), &text("kind")) == Some(kind)
}

/// What documents mean; nothing if they cannot be read.
fn meaning(documents: &[Value]) -> Option<String> {
    let text: Vec<String> = documents.iter().map(ToString::to_string).collect();
    let parsed = parse_documents("case.yaml", &text.join("\n---\n"), "default");
    if !parsed.diagnostics.is_empty() {
        return None;
    }
    let aged = parsed.objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect::<Vec<_>>();
    let got = outcome(&lateen_mesh::assume::running(&aged), "cluster.local");
    Some(format!("{:?} {:?}", got.made, got.status))
}

fn cases() -> Vec<Vec<Value>> {
    let files =
        std::fs::read_dir(folder()).expect("the folder is there").map(|entry| entry.expect("is readable").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.map(|path| documents(&std::fs::read_to_string(path).expect("is readable"))).collect()
}

/// Whether some case means something else without some occurrence of the field.
fn makes_a_difference(cases: &[(Vec<Value>, Option<String>)], kind: Kind, path: &str) -> bool {
    cases.iter().any(|(case, meaning_before)| {
        case.iter().enumerate().filter(|(_, document)| is_of(document, kind)).any(|(at, document)| {
            let mut found = Vec::new();
            places(document, path, &[], &mut found);
            found.iter().any(|place| {
                let mut changed = case.clone();
                changed[at] = without(document.clone(), place);
                meaning(&changed) != *meaning_before
            })
        })
    })
}

/// Whether those who write the field are told.
fn is_told(cases: &[(Vec<Value>, Option<String>)], kind: Kind, path: &str, words: &str) -> bool {
    let documents = cases.iter().flat_map(|(case, _)| case).filter(|document| is_of(document, kind));
    let mut objects =
        documents.flat_map(|document| parse_documents("a.yaml", &document.to_string(), "default").objects);
    let last = path.rsplit('.').next().unwrap_or(path).trim_end_matches("[]").to_owned();
    objects.any(|object| {
        validate(&object).iter().any(|found| found.field.contains(&last) && found.message.contains(words))
    })
}

#[test]
fn every_field_does_what_the_table_says_of_it() {
    let cases: Vec<(Vec<Value>, Option<String>)> = cases()
        .into_iter()
        .map(|case| {
            let is = meaning(&case);
            (case, is)
        })
        .collect();
    assert!(cases.iter().all(|(_, meaning)| meaning.is_some()), "all cases are readable");
    let mut wrong = Vec::new();
    for (kind, rows) in GATEWAY_API {
        for row in *rows {
            for path in row.paths() {
                let stands = match &row.standing {
                    Standing::Honoured { .. } => makes_a_difference(&cases, *kind, &path),
                    Standing::Gap(gap) => is_told(&cases, *kind, &path, gap.instead),
                    Standing::WithoutEffect(_) | Standing::Refused(_) => is_told(&cases, *kind, &path, ""),
                    Standing::ForPeople => true,
                };
                if !stands {
                    wrong.push(format!("{kind}: `{path}` ({:?})", row.standing));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "no case shows of {} fields that they stand as the table says:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

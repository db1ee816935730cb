//! Our definitions of Istio's kinds against Istio's own: both take the same objects.

use std::collections::BTreeMap;

use lateen_api::{Kind, schema};
use serde_json::{Value, json};

use crate::fields::definitions;

/// Where they differ, and why: kind, path and keyword.
const DIFFERENCES: &[(Kind, &str, &str, &str)] = &[];

/// What a schema says, by path and keyword. Words for people are everybody's own, and so is the text of rules in CEL.
fn flat(schema: &Value, at: &str, out: &mut BTreeMap<(String, String), Value>) {
    for (keyword, says) in schema.as_object().into_iter().flatten() {
        let says = match keyword.as_str() {
            "description" => continue,
            "properties" => {
                for (name, inside) in says.as_object().into_iter().flatten() {
                    flat(inside, &format!("{at}.{name}"), out);
                }
                continue;
            }
            "items" => {
                flat(says, &format!("{at}[]"), out);
                continue;
            }
            "additionalProperties" => {
                flat(says, &format!("{at}.*"), out);
                continue;
            }
            "x-kubernetes-validations" => json!(says.as_array().map(Vec::len)),
            "required" | "enum" => sorted(says),
            _ => says.clone(),
        };
        out.insert((at.to_owned(), keyword.clone()), says);
    }
}

fn sorted(list: &Value) -> Value {
    let mut words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.sort_unstable();
    json!(words)
}

#[test]
fn istios_kinds_are_defined_as_istio_defines_them() {
    let Some(istios) = definitions() else { return };
    let mut found = Vec::new();
    for kind in schema::kinds().filter(|kind| kind.group().ends_with(".istio.io")) {
        let ours = schema::definition(kind).unwrap();
        let named = istios.iter().find(|one| one["spec"]["names"]["kind"] == kind.name());
        let theirs = named.unwrap_or_else(|| panic!("no definition of {kind}"));
        assert_eq!(ours["metadata"]["name"], theirs["metadata"]["name"]);
        for field in ["group", "scope", "names"] {
            assert_eq!(ours["spec"][field], theirs["spec"][field], "{kind}: {field}");
        }
        let versions = |definition: &Value| definition["spec"]["versions"].as_array().unwrap().clone();
        let (mut ours, mut theirs) = (versions(&ours), versions(theirs));
        for versions in [&mut ours, &mut theirs] {
            versions.sort_by_key(|version| version["name"].to_string());
        }
        assert_eq!(ours.len(), theirs.len(), "{kind}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            for field in ["name", "served", "storage", "subresources"] {
                assert_eq!(ours[field], theirs[field], "{kind}: {field}");
            }
            let (mut mine, mut other) = (BTreeMap::new(), BTreeMap::new());
            flat(&ours["schema"]["openAPIV3Schema"], "", &mut mine);
            flat(&theirs["schema"]["openAPIV3Schema"], "", &mut other);
            assert!(mine.len() > 20, "{kind}: {mine:?}");
            let places: std::collections::BTreeSet<_> = mine.keys().chain(other.keys()).cloned().collect();
            for place in places.into_iter().filter(|place| mine.get(place) != other.get(place)) {
                let (path, keyword) = &place;
                let is_known = DIFFERENCES.iter().any(|(of, at, word, _)| *of == kind && at == path && word == keyword);
                if !is_known {
                    let version = ours["name"].as_str().unwrap_or_default();
                    found.push(format!(
                        "{kind} {version} {path} {keyword}: {:?}, Istio {:?}",
                        mine.get(&place),
                        other.get(&place)
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_definition_can_be_applied_by_an_ordinary_client() {
    for kind in schema::kinds() {
        let definition = schema::definition(kind).unwrap_or_else(|why| panic!("{why}"));
        // kubectl keeps what it applies in an annotation, and all of those may have 256 KiB together.
        let length = definition.to_string().len();
        assert!(length < 240 << 10, "{kind}: {length} bytes");
        let stored =
            definition["spec"]["versions"].as_array().unwrap().iter().filter(|version| version["storage"] == true);
        assert_eq!(stored.count(), 1, "{kind}");
    }
}

//! The table of fields against Istio's own schema: no field that Istio has is without a row.

use std::collections::BTreeSet;
use std::path::Path;

use lateen_api::Kind;
use lateen_api::support::{GATEWAY_API, TABLE};
use lateen_api::yaml::documents;
use serde_json::Value;

/// The definitions of Istio's kinds, where they lie beside the checkout. Absent: the test cannot run, which CI does not
/// accept.
pub(crate) fn definitions() -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples/crd-all.gen.yaml");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", path.display());
        eprintln!("skipped: {} is absent", path.display());
        return None;
    };
    Some(documents(&text).into_iter().map(|document| document.expect("is YAML").to_json()).collect())
}

/// Fields of the experimental channel that are read.
const EXPERIMENTAL: &[&str] = &["spec.rules[].retry", "spec.rules[].sessionPersistence"];

/// The definitions of the Gateway API's kinds, which lie beside those of Istio's.
fn of_gateway_api() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/gateway-api-crds");
    let files = std::fs::read_dir(folder).expect("they are there").map(|file| file.expect("is readable").path());
    let texts = files.map(|path| std::fs::read_to_string(path).expect("is readable"));
    let all = texts
        .flat_map(|text| documents(&text).into_iter().map(|it| it.expect("is YAML").to_json()).collect::<Vec<_>>());
    all.filter(|definition| definition["kind"] == "CustomResourceDefinition").collect()
}

/// The paths of a schema's leaves.
fn leaves(schema: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            leaves(schema, &format!("{at}.{name}"), out);
        }
    } else if schema["type"] == "array" {
        leaves(&schema["items"], &format!("{at}[]"), out);
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{at}.*"), out);
    } else {
        out.insert(at.to_owned());
    }
}

/// Whether a row's path is a leaf's, or stands for what the leaf is under.
fn covers(path: &str, leaf: &str) -> bool {
    path.is_empty() || leaf.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[test]
fn every_field_of_istio_has_a_row_and_every_row_a_field() {
    let Some(mut definitions) = definitions() else { return };
    definitions.extend(of_gateway_api());
    for (kind, rows) in TABLE.iter().chain(GATEWAY_API) {
        // Of the experimental channel, and not among the definitions.
        if *kind == Kind::XBackendTrafficPolicy {
            continue;
        }
        let is_it = |one: &&Value| one["spec"]["names"]["kind"] == kind.name() && one["spec"]["group"] == kind.group();
        let definition = definitions.iter().find(is_it);
        let schema = &definition.unwrap_or_else(|| panic!("no definition of {kind}"))["spec"]["versions"][0]["schema"];
        let mut fields = BTreeSet::new();
        leaves(&schema["openAPIV3Schema"]["properties"]["spec"], "spec", &mut fields);
        assert!(fields.len() > 2, "{kind}: {fields:?}");
        let missing: Vec<_> = fields
            .iter()
            .filter(|field| !rows.iter().flat_map(lateen_api::support::Row::paths).any(|path| covers(&path, field)))
            .collect();
        assert!(missing.is_empty(), "{kind} has fields without a row: {missing:#?}");
        for row in *rows {
            let is_right = row.paths().iter().all(|path| {
                fields.iter().any(|field| covers(path, field)) || EXPERIMENTAL.iter().any(|field| path.contains(field))
            });
            assert!(is_right, "{kind}: a row for `{}`, which Istio does not have", row.path);
        }
    }
}

//! The cases that Istio tests its analyzers with: each names files, an analyzer, and what that one must say of them.

use std::path::{Path, PathBuf};

use lateen_analyze::{Input, Text, analyze};
use serde_json::Value;

/// How the cases call analyzers whose own names are others.
const NAMES: [(&str, &str); 9] = [
    ("authz.AuthorizationPoliciesAnalyzer", "auth.AuthorizationPoliciesAnalyzer"),
    ("deployment.ApplicationUIDAnalyzer", "applicationUID.Analyzer"),
    ("deployment.ServiceAssociationAnalyzer", "deployment.MultiServiceAnalyzer"),
    ("deprecation.FieldAnalyzer", "deprecation.DeprecationAnalyzer"),
    ("destinationrule.PodNotSelectedAnalyzer", "destinationrule.SubsetSelectPodAnalyzer"),
    ("maturity.AlphaAnalyzer", "annotations.AlphaAnalyzer"),
    ("multicluster.MeshNetworksAnalyzer", "meshnetworks.MeshNetworksAnalyzer"),
    ("schemaValidation.CollectionValidationAnalyzer", "schema.ValidationAnalyzer.VirtualService"),
    ("serviceentry.ProtocolAddressesAnalyzer", "serviceentry.Analyzer"),
];

#[test]
fn findings_are_those_of_istio_on_its_own_cases() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples/analyze");
    if !folder.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
        eprintln!("skipped: {} is absent", folder.display());
        return;
    }
    let cases = std::fs::read_to_string(folder.join("cases.json")).expect("is readable");
    let cases: Vec<Value> = serde_json::from_str(&cases).expect("is a list");
    assert!(cases.len() >= 50, "only {} cases", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| differs(case, &folder)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What a case wants and what it gets, if that is not the same.
fn differs(case: &Value, folder: &Path) -> Option<String> {
    let read = |name: &Value| {
        let name = name.as_str()?;
        Some((name.to_owned(), std::fs::read_to_string(folder.join(name)).expect("is readable")))
    };
    let files: Vec<(String, String)> = case["files"].as_array().expect("is a list").iter().filter_map(read).collect();
    let texts: Vec<Text<'_>> = files.iter().map(|(name, text)| Text { name, text }).collect();
    let (config, networks) = (read(&case["mesh_config"]), read(&case["mesh_networks"]));
    fn text(given: &Option<(String, String)>) -> Option<Text<'_>> {
        given.as_ref().map(|(name, text)| Text { name, text })
    }
    let named = case["analyzer"].as_str().expect("has a name");
    let analyzer = NAMES.iter().find(|(theirs, _)| *theirs == named).map_or(named, |(_, own)| own);
    let input = Input {
        texts: &texts,
        namespace: "default",
        requested: &[analyzer],
        now: Some(1_780_000_000),
        mesh_config: text(&config),
        mesh_networks: text(&networks),
        ..Input::default()
    };
    let found = analyze(&input).into_iter().filter(|found| found.analyzers.contains(&analyzer));
    // Validation says more than Istio's analyzers: rules of the kinds, which they count as errors of the schema.
    let found = found.filter(|found| found.diagnostic.code.starts_with("IST"));
    let mut got: Vec<String> = found
        .map(|found| {
            let subject = found.diagnostic.object.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} {} {} {}", found.diagnostic.code, found.diagnostic.severity, found.name, short(&subject))
        })
        .collect();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let mut want: Vec<String> = case["expected"]
        .as_array()
        .expect("is a list")
        .iter()
        .map(|one| {
            let level = text(one, "level").to_lowercase();
            format!("{} {level} {} {}", text(one, "code"), text(one, "message"), short(&text(one, "object")))
        })
        .collect();
    got.sort();
    want.sort();
    (got != want).then(|| format!("{} ({named})\n  want {want:#?}\n  got  {got:#?}", text(case, "name")))
}

/// An object that names no namespace is one of the default namespace.
fn short(subject: &str) -> String {
    subject.replacen(" default/", " ", 1)
}

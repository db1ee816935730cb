//! Golden files: `tests/golden/<kind>/<case>.yaml` says in its comments what to show of whom
//! (`# show <pod>.<namespace> <type> <name pattern>`); `<case>.xds.yaml` is what that must be. `UPDATE=1` rewrites.
//! Metrics, which are a large part of every listener, are left out: `metrics` has them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lateen_mesh::MeshConfig;
use lateen_xds::json::to_yaml;
use serde_json::Value;

use crate::world::{TYPES, World, here, json, uncounted};

#[test]
fn translations_are_as_reviewed() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 10, "only {} golden files were found", cases.len());
    for case in cases {
        let got = render(&case);
        let expected = case.with_extension("xds.yaml");
        if update {
            std::fs::write(&expected, &got).expect("golden file is written");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != got {
            wrong.push(first_difference(&expected, &got));
        }
    }
    assert!(wrong.is_empty(), "not as reviewed (UPDATE=1 rewrites):\n{}", wrong.join("\n"));
}

fn cases() -> Vec<PathBuf> {
    let mut out = Vec::new();
    let kinds = std::fs::read_dir(here().join("tests/golden")).expect("the folder exists");
    for kind in kinds {
        for file in std::fs::read_dir(kind.expect("is readable").path()).expect("holds folders") {
            let path = file.expect("is readable").path();
            let name = path.file_name().expect("has a name").to_string_lossy().into_owned();
            if name.ends_with(".yaml") && !name.ends_with(".xds.yaml") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

fn render(case: &Path) -> String {
    let text = std::fs::read_to_string(case).expect("the case is readable");
    let file = case.file_name().expect("has a name").to_string_lossy();
    let provider = |line: &str| {
        let node =
            lateen_api::yaml::documents(line).into_iter().next().expect("a provider follows").expect("it is YAML");
        serde_json::from_value(node.to_json()).expect("it is a provider")
    };
    let providers = text.lines().filter_map(|line| line.strip_prefix("# provider ")).map(provider).collect();
    let config = MeshConfig { access_log_file: None, extension_providers: providers, ..MeshConfig::default() };
    let config = uncounted(config);
    let world = World::new(&[(&*file, &text)], config);
    let mut out = String::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# show ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [proxy, kind, pattern] = words.as_slice() else { panic!("{file}: `# show {line}` needs three words") };
        let (_, url) = TYPES.iter().find(|(short, _)| short == kind).expect("a known type");
        let mut shown = 0;
        for named in world.resources(proxy, url).iter().filter(|named| fits(pattern, &named.name)) {
            shown += 1;
            let yaml = to_yaml(&sorted(json(named))).expect("JSON is YAML");
            writeln!(out, "# {kind} {} of {proxy}\n{yaml}---", named.name).expect("strings take text");
        }
        assert!(shown > 0, "{file}: nothing fits `# show {line}` among {:?}", world.names(proxy, url));
    }
    assert!(!out.is_empty(), "{file}: no `# show` line");
    out
}

/// Fields in the order of their names, what a thing is and is called first: decoded maps have no order of their own.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            let rank = |key: &str| (key != "@type", key != "name", key.to_owned());
            fields.sort_by_key(|(key, _)| rank(key));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// `*` stands for any text.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(rest, &name[at..]))
        }),
    }
}

fn first_difference(path: &Path, got: &str) -> String {
    let want = std::fs::read_to_string(path).unwrap_or_default();
    let line = want.lines().zip(got.lines()).take_while(|(want, got)| want == got).count();
    format!(
        "{}:{}\n  want: {}\n  got:  {}",
        path.display(),
        line + 1,
        want.lines().nth(line).unwrap_or("(end)"),
        got.lines().nth(line).unwrap_or("(end)")
    )
}

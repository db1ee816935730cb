//! Every field of Istio's kinds does what the table in `lateen_api::support` says of it.
//!
//! `tests/fields/<kind>.yaml` has a world and, for each field, a spec with it. A case that says where to look (`see`)
//! proves that the field is honoured: what is seen there `is` what the case says, and is something else without the
//! field. Any other case proves that whoever writes the field is told of it. A row of the table without a case fails, and so
//! does a case without a row.
//!
//! `see` is `<type> <resource> <path>`; a path names the members of lists by their `name`, or by their place. What is
//! compared with is the spec without the field, unless the case gives another (`without`) or another value
//! (`instead`). `policy` stands for a DestinationRule's traffic policy in each place that it can have.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::extension_providers::ExtensionProvider;
use lateen_api::support::{Row, Standing, TABLE};
use lateen_api::{Diagnostic, Kind, Object};
use lateen_mesh::MeshConfig;
use lateen_translate::type_url;
use serde_json::{Value, json};

use crate::golden::fits;
use crate::world::{TYPES, World, here, uncounted};

/// A world, and what to try in it.
struct Suite {
    kind: Kind,
    /// The text of the world's objects.
    world: String,
    /// Of the mesh config.
    providers: Vec<ExtensionProvider>,
    cases: Vec<Case>,
}

struct Case {
    field: String,
    spec: Value,
    /// The spec to compare with.
    without: Value,
    /// What to look at; none: the field must be told of.
    see: Option<See>,
}

struct See {
    proxy: String,
    type_url: &'static str,
    resource: String,
    path: String,
    is: Value,
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

impl Suite {
    fn read(path: &std::path::Path) -> Self {
        let text_of = std::fs::read_to_string(path).expect("the suite is readable");
        let document = lateen_api::yaml::documents(&text_of).into_iter().next().expect("the suite has a document");
        let suite = document.unwrap_or_else(|error| panic!("{}: {error:?}", path.display())).to_json();
        let list = |key: &str| suite[key].as_array().cloned().unwrap_or_default();
        let places: BTreeMap<String, String> = suite["places"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, place)| (name.clone(), place.as_str().expect("a place is a text").to_owned()))
            .collect();
        let world: Vec<String> = list("world").iter().map(ToString::to_string).collect();
        let providers = list("extensionProviders")
            .into_iter()
            .map(|provider| serde_json::from_value(provider).expect("the suite's providers are some"));
        let providers = providers.collect();
        let proxy = text(&suite, "proxy").expect("a suite names a proxy");
        let cases = list("cases").iter().flat_map(|case| Case::read(case, &proxy, &places)).collect();
        let kind =
            text(&suite, "kind").expect("a suite names a kind").parse().expect("a suite is about a kind of ours");
        Self { kind, world: world.join("\n---\n"), providers, cases }
    }

    /// The object with this spec, and everything around it.
    fn try_out(&self, spec: &Value) -> (Object, World) {
        let object = json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.name(),
            "metadata": {"name": "tried", "namespace": "default"},
            "spec": spec,
        });
        let config =
            MeshConfig { access_log_file: None, extension_providers: self.providers.clone(), ..MeshConfig::default() };
        let config = if self.kind == Kind::Telemetry { config } else { uncounted(config) };
        let tried = object.to_string();
        let world = World::new(&[("world.yaml", &self.world), ("tried.yaml", &tried)], config);
        let object =
            world.objects.iter().find(|object| object.kind() == self.kind && object.metadata().name == "tried");
        (object.expect("the object is there").clone(), world)
    }
}

impl Case {
    /// The case, or the cases that `policy` makes of it.
    fn read(case: &Value, proxy: &str, places: &BTreeMap<String, String>) -> Vec<Self> {
        let field = text(case, "field").expect("a case names a field");
        let see = text(case, "see")
            .map(|text| places.iter().fold(text, |text, (name, place)| text.replace(&format!("<{name}>"), place)));
        let of = |field: String, see: Option<String>, spec: Value| {
            let see = see.map(|see| {
                let mut words = see.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("`see: {see}` needs three words")).to_owned();
                let kind = word();
                let known =
                    TYPES.iter().copied().chain([("secret", type_url::SECRET)]).find(|(short, _)| *short == kind);
                See {
                    proxy: text(case, "as").unwrap_or_else(|| proxy.to_owned()),
                    type_url: known.unwrap_or_else(|| panic!("{kind} is no type of resource")).1,
                    resource: word(),
                    path: word(),
                    is: case["is"].clone(),
                }
            });
            let without = match (case.get("without"), case.get("instead")) {
                (Some(without), _) => without.clone(),
                (None, value) => edited(&spec, &field, value),
            };
            Self { field, spec, without, see }
        };
        let Some(policy) = case.get("policy") else { return vec![of(field, see, case["spec"].clone())] };
        let rest = field.strip_prefix("{policy}").expect("the field is one of a policy");
        let on_ports = json!({"portLevelSettings": [{"port": {"number": 80}}]});
        let on_port = {
            let mut settings = on_ports;
            let entry = settings["portLevelSettings"][0].as_object_mut().expect("is one");
            entry.extend(policy.as_object().expect("a policy has fields").clone());
            settings
        };
        let subset = |policy: &Value| json!({"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy});
        let plain = json!([{"name": "v1", "labels": {"version": "v1"}}]);
        [
            ("spec.trafficPolicy", "", json!({"host": "web", "trafficPolicy": policy, "subsets": plain})),
            (
                "spec.trafficPolicy.portLevelSettings[]",
                "",
                json!({"host": "web", "trafficPolicy": on_port, "subsets": plain}),
            ),
            ("spec.subsets[].trafficPolicy", "v1", json!({"host": "web", "subsets": [subset(policy)]})),
            (
                "spec.subsets[].trafficPolicy.portLevelSettings[]",
                "v1",
                json!({"host": "web", "subsets": [subset(&on_port)]}),
            ),
        ]
        .into_iter()
        // Some blocks cannot be for one port.
        .filter(|(place, ..)| {
            let only_for_all =
                ["tunnel", "proxyProtocol", "retryBudget"].iter().any(|block| policy.get(block).is_some());
            !(only_for_all && place.ends_with(']'))
        })
        .map(|(place, name, spec)| {
            let see = see.as_ref().map(|see| see.replace("{subset}", name));
            of(format!("{place}{rest}"), see, spec)
        })
        .collect()
    }

    /// What is wrong.
    fn fails(&self, suite: &Suite) -> Option<String> {
        let (object, world) = suite.try_out(&self.spec);
        let told = lateen_api::validate(&object);
        let Some(see) = &self.see else {
            let is_told = told.iter().any(|found| fits_field(&self.field, &found.field));
            return (!is_told).then(|| format!("nobody is told of it: {told:#?}"));
        };
        if let Some(found) = told.iter().find(|found| found.is_error() || found.code == "LAT0005") {
            return Some(format!("the object is refused: {}: {}", found.field, found.message));
        }
        let (object, other) = suite.try_out(&self.without);
        if let Some(found) = lateen_api::validate(&object).iter().find(|found| found.is_error()) {
            return Some(format!("what it is compared with is refused: {}: {}", found.field, found.message));
        }
        let (with, without) = (see.look(&world), see.look(&other));
        if !same(&with, &see.is) {
            return Some(format!("there is {with}, not {} (without the field: {without})", see.is));
        }
        same(&without, &see.is).then(|| format!("without the field there is {without}, too"))
    }
}

impl See {
    /// What is there; null for nothing.
    fn look(&self, world: &World) -> Value {
        let all = world.resources(&self.proxy, self.type_url);
        let Some(named) = all.iter().find(|named| *named.name == *self.resource) else { return Value::Null };
        let mut at = &crate::world::json(named);
        for step in self.path.split('/') {
            let found = match at {
                Value::Array(items) => step
                    .parse()
                    .map_or_else(|_| items.iter().find(|item| item["name"] == step), |place: usize| items.get(place)),
                other => other.get(step),
            };
            let Some(found) = found else { return Value::Null };
            at = found;
        }
        at.clone()
    }
}

/// Numbers are the same however they are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The spec without a field, and without what is empty then; or with another value in its place.
fn edited(spec: &Value, field: &str, value: Option<&Value>) -> Value {
    // Lists and maps go as a whole.
    let field = field.trim_end_matches("[]").trim_end_matches(".*");
    let steps: Vec<String> = field.replace("[]", ".[]").split('.').map(str::to_owned).collect();
    let mut root = json!({ "spec": spec });
    edit(&mut root, &steps, value);
    drop_bare_ports(&mut root);
    root["spec"].take()
}

fn edit(at: &mut Value, steps: &[String], value: Option<&Value>) {
    let Some((step, rest)) = steps.split_first() else { return };
    if let (Value::Array(items), "[]") = (&mut *at, step.as_str()) {
        items.iter_mut().for_each(|item| edit(item, rest, value));
        return;
    }
    let Value::Object(fields) = at else { return };
    let names: Vec<String> = fields.keys().filter(|name| step == "*" || *name == step).cloned().collect();
    for name in names {
        if !rest.is_empty() {
            edit(&mut fields[&name], rest, value);
        } else if let Some(value) = value {
            fields[&name] = value.clone();
        }
        let is_gone =
            (rest.is_empty() && value.is_none()) || fields[&name].as_object().is_some_and(serde_json::Map::is_empty);
        if is_gone && name != "spec" {
            fields.remove(&name);
        }
    }
}

/// A port's settings may not be empty: without any, the port is not named.
fn drop_bare_ports(at: &mut Value) {
    match at {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_bare_ports);
            if let Some(Value::Array(ports)) = fields.get_mut("portLevelSettings") {
                ports.retain(|settings| settings.as_object().is_some_and(|settings| settings.len() > 1));
            }
            fields.retain(|name, value| {
                name != "portLevelSettings" || value.as_array().is_some_and(|ports| !ports.is_empty())
            });
            fields.retain(|name, value| {
                name != "trafficPolicy" || value.as_object().is_some_and(|policy| !policy.is_empty())
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_bare_ports),
        _ => {}
    }
}

/// Whether a finding's field (`spec.http[0].name`) is one that the path (`spec.http[].name`) means, or lies under it.
fn fits_field(path: &str, field: &str) -> bool {
    let mut general = String::new();
    let mut inside = false;
    for letter in field.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        general.push(letter);
    }
    let path = path.trim_end_matches("[]");
    if path.is_empty() {
        field.is_empty()
    } else {
        fits(path, &general) || fits(&format!("{path}[]*"), &general) || fits(&format!("{path}.*"), &general)
    }
}

fn suites() -> Vec<(String, Suite)> {
    let mut out: Vec<_> = std::fs::read_dir(here().join("tests/fields"))
        .expect("the folder exists")
        .map(|file| file.expect("is readable").path())
        .map(|path| (path.file_name().expect("has a name").to_string_lossy().into_owned(), Suite::read(&path)))
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

#[test]
fn every_case_is_as_it_says() {
    let mut wrong = Vec::new();
    for (file, suite) in suites() {
        for case in &suite.cases {
            wrong.extend(case.fails(&suite).map(|reason| format!("{file}: {}: {reason}", case.field)));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_has_a_case_and_every_case_a_row() {
    let mut wrong = Vec::new();
    let suites = suites();
    for (kind, rows) in TABLE {
        let of_kind: Vec<&Suite> = suites.iter().map(|(_, suite)| suite).filter(|suite| suite.kind == *kind).collect();
        for row in *rows {
            let paths = row.paths().into_iter().filter(|path| !is_proven(row, path, &of_kind));
            wrong.extend(paths.map(|path| format!("{kind}: `{path}` ({:?}) has no case", row.standing)));
        }
        let known: BTreeSet<String> = rows.iter().flat_map(Row::paths).collect();
        for case in of_kind.iter().flat_map(|suite| &suite.cases).filter(|case| !known.contains(&case.field)) {
            wrong.push(format!("{kind}: `{}` has a case and no row", case.field));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether some case shows that this path of a row stands as the row says.
fn is_proven(row: &Row, path: &str, suites: &[&Suite]) -> bool {
    let mut cases = suites.iter().flat_map(|suite| suite.cases.iter().map(move |case| (suite, case)));
    match &row.standing {
        Standing::Honoured { proof: Some(proof) } => exists(proof),
        Standing::Honoured { proof: None } => cases.any(|(_, case)| case.field == path && case.see.is_some()),
        Standing::ForPeople => true,
        Standing::WithoutEffect(_) => cases.any(|(_, case)| case.field == path && case.see.is_none()),
        Standing::Refused(_) => {
            cases.any(|(suite, case)| case.field == path && tells(suite, case, Diagnostic::is_error))
        }
        Standing::Gap(gap) => {
            let is_told = |found: &Diagnostic| found.severity == gap.severity && found.message.ends_with(gap.instead);
            cases.any(|(suite, case)| case.field == path && tells(suite, case, is_told))
        }
    }
}

fn tells(suite: &Suite, case: &Case, what: impl Fn(&Diagnostic) -> bool) -> bool {
    let told = lateen_api::validate(&suite.try_out(&case.spec).0);
    case.see.is_none() && told.iter().any(|found| fits_field(&case.field, &found.field) && what(found))
}

/// Whether there is the test that a row names, as `path::name`.
fn exists(proof: &str) -> bool {
    let (file, name) = proof.split_once("::").unwrap_or_else(|| panic!("`{proof}` is not of the form path::name"));
    let text =
        std::fs::read_to_string(here().join("../..").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.contains(&format!("fn {name}("))
}

/// Shows the world of every honoured field, and the proxy that the case looks at.
pub(crate) fn visit(mut see: impl FnMut(&str, &World, &str)) {
    for (file, suite) in suites() {
        for (case, seen) in suite.cases.iter().filter_map(|case| Some((case, case.see.as_ref()?))) {
            let name = format!("{file}-{}", case.field.replace(['/', '*', '[', ']'], "-"));
            let mut world = suite.try_out(&case.spec).1;
            // Where the specs of the suites say that files are.
            world.needs_files = case.spec.to_string().contains("\"/c/");
            see(&name, &world, &seen.proxy);
        }
    }
}

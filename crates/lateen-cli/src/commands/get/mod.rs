//! `lateen get`: objects as a table, YAML, JSON or names.

mod table;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use lateen_api::selector::LabelSelector;
use lateen_api::similar::did_you_mean;
use lateen_api::{Kind, StringMap};
use serde_json::{Value, json};

use super::apply::running;
use super::resources::{Chosen, full_name};
use super::{StateOption, WRONG};
use crate::api::ControlPlane;
use crate::runtime::paint::{ERROR, PLAIN};
use table::Table;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to show: `vs`, `vs,dr`, `vs NAME…`, `vs/NAME dr/NAME …`, `all` (pods, services, deployments) or `istio-io`.
    #[arg(value_name = "KIND [NAME…]", required = true)]
    what: Vec<String>,
    /// Only in this namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels: `app=reviews,version!=v1`.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<LabelSelector>,
    /// Form of the output; `wide` is a table with more columns.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Yaml,
    Json,
    Name,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let chosen = Chosen::parse(&arguments.what)?;
    let control_plane = running(&arguments.state)?;
    let found = super::block_on(Found::look_up(arguments, &chosen, &control_plane))?;
    match arguments.output {
        Output::Json => anstream::println!("{:#}", found.shown()),
        Output::Yaml => anstream::print!("{}", serde_saphyr::to_string(&found.shown())?),
        Output::Name => found.groups.iter().for_each(|group| {
            group.items.iter().for_each(|item| anstream::println!("{}", full_name(group.kind, name(item))));
        }),
        Output::Table | Output::Wide => found.tables(arguments),
    }
    for missing in &found.missing {
        anstream::eprintln!("{ERROR}error:{PLAIN} {missing}");
    }
    Ok(if found.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// Objects of one kind.
struct Group {
    kind: Kind,
    items: Vec<Value>,
}

/// What there is of what was asked for.
struct Found {
    groups: Vec<Group>,
    /// The command names one object, which is shown as itself and not as a list.
    is_single: bool,
    /// A line for each object that was asked for by name and is not there.
    missing: Vec<String>,
    /// How many of a Deployment's pods are ready is in the pods.
    pods: Vec<Value>,
}

impl Found {
    async fn look_up(arguments: &Arguments, chosen: &Chosen, control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let namespace =
            |kind: Kind| (kind.is_namespaced() && !arguments.all_namespaces).then_some(arguments.namespace.as_str());
        let fits = |item: &Value| arguments.selector.as_ref().is_none_or(|selector| selector.matches(&labels(item)));
        let mut found = Self { groups: Vec::new(), is_single: false, missing: Vec::new(), pods: Vec::new() };
        match chosen {
            Chosen::Kinds(kinds) => {
                for kind in kinds {
                    let mut items = control_plane.objects(*kind, namespace(*kind), None).await?;
                    items.retain(fits);
                    found.groups.push(Group { kind: *kind, items });
                }
            }
            Chosen::Named(names) => {
                for (kind, name) in names {
                    let mut items = control_plane.objects(*kind, namespace(*kind), Some(name)).await?;
                    if items.is_empty() {
                        found.missing.push(not_found(control_plane, *kind, namespace(*kind), name).await?);
                    }
                    items.retain(fits);
                    match found.groups.iter_mut().find(|group| group.kind == *kind) {
                        Some(group) => group.items.extend(items),
                        None => found.groups.push(Group { kind: *kind, items }),
                    }
                }
                found.is_single = names.len() == 1;
            }
        }
        if found.groups.iter().any(|group| group.kind == Kind::Deployment) {
            found.pods = control_plane.objects(Kind::Pod, namespace(Kind::Pod), None).await?;
        }
        Ok(found)
    }

    fn shown(&self) -> Value {
        let items: Vec<&Value> = self.groups.iter().flat_map(|group| &group.items).collect();
        match items.as_slice() {
            [only] if self.is_single => (*only).clone(),
            all => json!({ "apiVersion": "v1", "kind": "List", "items": all }),
        }
    }

    /// One table for each kind of which there is something.
    fn tables(&self, arguments: &Arguments) {
        let several = self.groups.len() > 1;
        let filled: Vec<&Group> = self.groups.iter().filter(|group| !group.items.is_empty()).collect();
        for (position, group) in filled.iter().enumerate() {
            if position > 0 {
                anstream::println!();
            }
            let table = Table {
                kind: group.kind,
                namespaces: arguments.all_namespaces && group.kind.is_namespaced(),
                full_names: several,
                wide: arguments.output == Output::Wide,
                pods: &self.pods,
            };
            anstream::println!("{}", table.of(&group.items));
        }
        if filled.is_empty() && self.missing.is_empty() {
            let kinds: Vec<&str> = self.groups.iter().map(|group| group.kind.plural()).collect();
            let namespaced = self.groups.iter().any(|group| group.kind.is_namespaced()) && !arguments.all_namespaces;
            let place = if namespaced { format!(" in namespace {}", arguments.namespace) } else { String::new() };
            anstream::eprintln!("no {} found{place}", kinds.join(", "));
        }
    }
}

/// Says where else there is one, or which other name may have been meant.
pub(super) async fn not_found(
    control_plane: &ControlPlane,
    kind: Kind,
    namespace: Option<&str>,
    wanted: &str,
) -> anyhow::Result<String> {
    let all = control_plane.objects(kind, None, None).await?;
    let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    let elsewhere = all.iter().find(|item| name(item) == wanted);
    let here =
        all.iter().filter(|item| namespace.is_none_or(|namespace| text_at(item, "/metadata/namespace") == namespace));
    let names: Vec<&str> = here.map(name).collect();
    let hint = match (elsewhere, did_you_mean(wanted, &names)) {
        (Some(item), _) => format!("; there is one in -n {}", text_at(item, "/metadata/namespace")),
        (None, Some(meant)) => format!(", did you mean `{meant}`?"),
        (None, None) => String::new(),
    };
    Ok(format!("{} not found{place}{hint}", full_name(kind, wanted)))
}

fn name(item: &Value) -> &str {
    text_at(item, "/metadata/name")
}

fn text_at<'a>(item: &'a Value, pointer: &str) -> &'a str {
    item.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn labels(item: &Value) -> StringMap {
    let labels = item.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

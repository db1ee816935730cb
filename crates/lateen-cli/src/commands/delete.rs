//! `lateen delete`: by file, by kind and name, or all of a kind.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use lateen_api::selector::LabelSelector;
use lateen_api::{Kind, Object, ObjectKey};

use super::apply::{Input, Waiting, complain, running, tell};
use super::get::{labels, not_found};
use super::resources::Chosen;
use super::{Misuse, StateOption, WRONG};
use crate::api::ControlPlane;
use crate::api::objects::Refused;
use crate::runtime::paint::{ERROR, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to delete: `vs NAME…` or `vs/NAME dr/NAME …`; with --all or -l, kinds alone.
    #[arg(value_name = "KIND NAME…", conflicts_with = "files")]
    named: Vec<String>,
    /// File or folder of YAML; - for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<std::path::PathBuf>,
    /// Read folders in folders, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All objects of these kinds in the namespace.
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// Those with these labels: `app=reviews,version!=v1`.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "files")]
    selector: Option<LabelSelector>,
    /// What is not there counts as deleted.
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let by_name = if arguments.files.is_empty() { Some(chosen(arguments)?) } else { None };
    let control_plane = running(&arguments.state)?;
    let keys = match by_name {
        Some(chosen) => super::block_on(keys(arguments, &control_plane, chosen))?,
        None => {
            let Arguments { files, recursive, namespace, .. } = arguments;
            let input = Input { files: files.clone(), recursive: *recursive, namespace: namespace.clone() };
            let texts = input.read()?;
            let (objects, found) = input.objects(&texts);
            if complain(&found, &texts) {
                return Ok(ExitCode::from(WRONG));
            }
            objects.iter().map(Object::key).collect()
        }
    };
    let start = Instant::now();
    super::block_on(async {
        let mut changed = match control_plane.delete(&keys).await? {
            Ok(changed) => changed,
            Err(Refused(found)) => {
                complain(&found, &[]);
                return Ok(ExitCode::from(WRONG));
            }
        };
        let missing = changed.results.extract_if(.., |outcome| outcome.action == "not found").collect::<Vec<_>>();
        tell(&changed, "");
        let mut code = arguments.waiting.until_live(&control_plane, &changed, start).await?;
        for outcome in missing.iter().filter(|_| !arguments.ignore_not_found) {
            let namespace = Some(outcome.namespace.as_str()).filter(|namespace| !namespace.is_empty());
            let missing = not_found(&control_plane, outcome.kind, namespace, &outcome.name).await?;
            anstream::eprintln!("{ERROR}error:{PLAIN} {missing}");
            code = ExitCode::from(WRONG);
        }
        Ok(code)
    })
}

/// Kinds alone would delete more than many a caller means.
fn chosen(arguments: &Arguments) -> anyhow::Result<Chosen> {
    if arguments.named.is_empty() {
        return Err(Misuse::of(
            "say what to delete: `-f FILE`, or a kind and a name, as in `lateen delete vs reviews`",
        ));
    }
    let chosen = Chosen::parse(&arguments.named)?;
    let by_condition = arguments.all || arguments.selector.is_some();
    match (&chosen, by_condition) {
        (Chosen::Kinds(_), false) => {
            Err(Misuse::of("say which ones: by name, by labels (-l), or --all in the namespace"))
        }
        (Chosen::Named(_), true) => Err(Misuse::of("names and --all or -l exclude each other")),
        _ => Ok(chosen),
    }
}

async fn keys(arguments: &Arguments, control_plane: &ControlPlane, chosen: Chosen) -> anyhow::Result<Vec<ObjectKey>> {
    let namespace = |kind: Kind| if kind.is_namespaced() { arguments.namespace.as_str() } else { "" };
    match chosen {
        Chosen::Named(names) => {
            Ok(names.iter().map(|(kind, name)| ObjectKey::new(*kind, namespace(*kind), name)).collect())
        }
        Chosen::Kinds(kinds) => {
            let mut keys = Vec::new();
            for kind in kinds {
                let items = control_plane.objects(kind, Some(namespace(kind)), None).await?;
                let wanted =
                    items.iter().filter(|item| arguments.selector.as_ref().is_none_or(|it| it.matches(&labels(item))));
                let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                keys.extend(wanted.map(|item| ObjectKey::new(kind, namespace(kind), &name(item))));
            }
            Ok(keys)
        }
    }
}

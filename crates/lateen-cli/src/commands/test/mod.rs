//! `lateen test`: requests with what is to become of them, and what holds for all, on files, without a mesh.

mod check;
mod file;
mod invariants;
mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use http::Method;
use lateen_explain::journey::{Journey, Place};
use lateen_explain::question::SOMEBODY;
use lateen_explain::{From, Objects, Question, Url, World};

use super::authz::request::header;
use super::world::written;
use super::{Misuse, WRONG};
use crate::runtime::excerpt::shown_path;
use file::{Case, File};
use report::Verdict;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File of tests; repeatable.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// More objects than the tests name: file or folder of YAML; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    objects: Vec<PathBuf>,
    /// Read folders in folders, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of objects, and of who asks, where none is named.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Write the results in JUnit's form, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Say which rules and policies no test was about.
    #[arg(long)]
    coverage: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut verdicts = Vec::new();
    let mut untouched: BTreeSet<Place> = BTreeSet::new();
    let mut touched: BTreeSet<Place> = BTreeSet::new();
    for path in &arguments.files {
        let file = file::read(path)?;
        if file.tests.is_empty() && file.invariants.is_empty() {
            return Err(Misuse::of(format!("{} holds neither tests nor invariants", path.display())));
        }
        let objects: Vec<PathBuf> = file.objects.iter().chain(&arguments.objects).cloned().collect();
        if objects.is_empty() {
            return Err(Misuse::of(format!("{} names no objects, and there is no -f", path.display())));
        }
        let config = lateen_control::mesh_settings::load(file.mesh_config.as_deref())?.config;
        let (objects, _) = written(objects, arguments.recursive, &arguments.namespace)?;
        let world = World::new(objects, Objects::Written, config);
        untouched.extend(world.rules());
        look(arguments, path, &file, &world, (&mut verdicts, &mut touched));
    }
    report::tell(&verdicts);
    if arguments.coverage {
        untouched.retain(|place| !touched.contains(place));
        tell_untouched(&untouched);
    }
    if let Some(path) = &arguments.junit {
        std::fs::write(path, report::junit(&verdicts)).with_context(|| format!("write {}", path.display()))?;
    }
    let fails = verdicts.iter().any(|verdict| !verdict.wrong.is_empty());
    Ok(if fails { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

fn look(
    arguments: &Arguments,
    path: &Path,
    file: &File,
    world: &World,
    (verdicts, touched): (&mut Vec<Verdict>, &mut BTreeSet<Place>),
) {
    let shown = shown_path(&path.display().to_string());
    for case in &file.tests {
        let wrong = match journey(&case.value, world, &arguments.namespace) {
            Err(why) => vec![format!("{why:#}")],
            Ok(journey) => {
                touched.extend(told_of(&journey));
                check::differences(&case.value.expect, &journey)
            }
        };
        let (name, line) = (case.value.name.clone(), case.defined.line());
        verdicts.push(Verdict { name, file: shown.clone(), line, wrong, note: String::new() });
    }
    for invariant in &file.invariants {
        let (wrong, count) = invariants::breaches(world, &invariant.value.rule);
        let note = format!("{count} requests");
        let (name, line) = (invariant.value.name.clone(), invariant.defined.line());
        verdicts.push(Verdict { name, file: shown.clone(), line, wrong, note });
    }
}

fn journey(case: &Case, world: &World, namespace: &str) -> anyhow::Result<Journey> {
    let from = match (&case.from, &case.via) {
        (Some(name), _) => From::Workload { name: name.clone(), namespace: namespace.to_owned() },
        (None, Some(_)) => From::Outside(SOMEBODY),
        (None, None) => anyhow::bail!("say who asks: `from`, or `via` for somebody outside"),
    };
    let claims = match &case.claims {
        None => None,
        Some(claims) => Some(lateen_engine::json::object(claims.to_string().as_bytes()).context("claims")?),
    };
    let method = case.method.as_deref().unwrap_or("GET");
    let question = Question {
        from,
        url: Url::parse(&case.to)?,
        via: case.via.clone(),
        method: Method::from_bytes(method.as_bytes()).with_context(|| format!("`{method}` is no method"))?,
        headers: (case.headers.iter())
            .map(|(name, value)| header(&format!("{name}: {value}")))
            .collect::<anyhow::Result<_>>()?,
        claims,
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
    };
    Ok(lateen_explain::explain(world, &question)?)
}

/// The rules that had a say.
fn told_of(journey: &Journey) -> Vec<Place> {
    let legs = journey.first.all();
    let routes =
        legs.iter().flat_map(|leg| &leg.steps).filter(|step| step.stage == lateen_explain::journey::Stage::Route);
    let rules = legs.iter().flat_map(|leg| &leg.verdicts).filter(|verdict| verdict.rule.is_some());
    routes.flat_map(|step| step.places.clone()).chain(rules.map(|verdict| verdict.place.clone())).collect()
}

fn tell_untouched(places: &BTreeSet<Place>) {
    if places.is_empty() {
        anstream::println!("every rule and policy had a say in some test");
        return;
    }
    anstream::println!("no test was about:");
    for place in places {
        anstream::println!("  {place} ({}:{})", shown_path(&place.file), place.line);
    }
}

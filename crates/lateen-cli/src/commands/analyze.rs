//! `lateen analyze`: what is wrong, or surprising, in files, in the running mesh, or in both together.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lateen_analyze::{Finding, Suppressions, Text, analyzers};
use lateen_api::similar::did_you_mean;
use lateen_api::{Object, Severity};

use super::apply::Input;
use super::columns::columns;
use super::{Misuse, Output, StateOption, WRONG, in_force};
use crate::api::objects::Named;
use crate::runtime::excerpt::told_of;
use crate::runtime::paint::{GOOD, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File or folder of YAML; - for standard input. Without any: the running mesh.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The same, as kubectl takes it; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Read folders in folders, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Look at the files as if they were applied to the running mesh.
    #[arg(long)]
    with_mesh: bool,
    /// The mesh config that belongs to the files.
    #[arg(long, visible_alias = "meshConfigFile", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// The networks (Istio's MeshNetworks) that belong to the files.
    #[arg(long, value_name = "FILE")]
    mesh_networks: Option<PathBuf>,
    /// Only findings of this analyzer; repeatable.
    #[arg(long, value_name = "NAME")]
    analyzer: Vec<String>,
    /// List the analyzers.
    #[arg(short = 'L', long)]
    list_analyzers: bool,
    /// Leave out findings: CODE, or CODE=KIND NAME.NAMESPACE, which may hold `*`; repeatable.
    #[arg(short = 'S', long, value_name = "FINDING")]
    suppress: Vec<String>,
    /// End with 1 if there is a finding as bad as this.
    #[arg(long, visible_alias = "failure-threshold", value_enum, ignore_case = true, default_value = "error")]
    fail_on: FailOn,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    #[value(alias = "warning")]
    Warn,
    Error,
    Info,
    Never,
}

impl FailOn {
    fn is_met(self, severity: Severity) -> bool {
        match self {
            Self::Never => false,
            Self::Error => severity >= Severity::Error,
            Self::Warn => severity >= Severity::Warning,
            Self::Info => true,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list_analyzers {
        list(arguments.output);
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.analyzer {
        known(name)?;
    }
    let suppressed = Suppressions::of_rules(&arguments.suppress).map_err(Misuse::of)?;
    let files: Vec<PathBuf> = arguments.paths.iter().chain(&arguments.files).cloned().collect();
    let is_live = files.is_empty() || arguments.with_mesh;
    let input = Input { files, recursive: arguments.recursive, namespace: arguments.namespace.clone() };
    let texts = input.read()?;
    let objects = if is_live { in_force::objects(&arguments.state)? } else { Vec::new() };
    let mut findings = look(arguments, &texts, &objects)?;
    suppressed.apply(&mut findings);
    if !arguments.analyzer.is_empty() {
        findings.retain(|found| found.analyzers.iter().any(|name| arguments.analyzer.iter().any(|it| it == name)));
    }
    match arguments.output {
        Output::Json => anstream::println!("{:#}", serde_json::to_value(&findings)?),
        Output::Table => tell(&findings, &texts),
    }
    let is_bad = findings.iter().any(|found| arguments.fail_on.is_met(found.diagnostic.severity));
    Ok(if is_bad { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

fn known(name: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = analyzers().iter().map(|analyzer| analyzer.name).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let meant = did_you_mean(name, &names).map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
    Err(Misuse::of(format!("there is no analyzer `{name}`{meant} (-L lists them)")))
}

fn list(output: Output) {
    match output {
        Output::Json => {
            let of =
                |it: &lateen_analyze::Analyzer| serde_json::json!({"name": it.name, "description": it.description});
            anstream::println!("{:#}", analyzers().iter().map(of).collect::<serde_json::Value>());
        }
        Output::Table => {
            let row = |it: &lateen_analyze::Analyzer| vec![it.name.to_owned(), it.description.to_owned()];
            let rows: Vec<Vec<String>> = analyzers().iter().map(row).collect();
            anstream::println!("{}", columns(&["NAME", "LOOKS FOR"], &rows));
        }
    }
}

fn look(arguments: &Arguments, texts: &[Named], objects: &[Object]) -> anyhow::Result<Vec<Finding>> {
    let read = |path: &Option<PathBuf>| -> anyhow::Result<Option<(String, String)>> {
        let Some(path) = path else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Some((path.display().to_string(), text)))
    };
    fn text(given: &Option<(String, String)>) -> Option<Text<'_>> {
        given.as_ref().map(|(name, text)| Text { name, text })
    }
    let (config, networks) = (read(&arguments.mesh_config)?, read(&arguments.mesh_networks)?);
    let settings = match &config {
        None => None,
        Some((name, text)) => {
            let (config, found) = lateen_api::mesh_config::parse(name, text);
            for finding in &found {
                anstream::eprintln!("{}", told_of(finding, Some(text)));
            }
            Some(lateen_mesh::MeshConfig::of(config))
        }
    };
    let texts: Vec<Text<'_>> = texts.iter().map(|named| Text { name: &named.file, text: &named.text }).collect();
    let requested: Vec<&str> = arguments.analyzer.iter().map(String::as_str).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    Ok(lateen_analyze::analyze(&lateen_analyze::Input {
        texts: &texts,
        running: objects,
        namespace: &arguments.namespace,
        requested: &requested,
        mesh_config: text(&config),
        settings: settings.as_ref(),
        mesh_networks: text(&networks),
        now,
    }))
}

/// Each finding with its line, and how many there are.
fn tell(findings: &[Finding], texts: &[Named]) {
    let texts: HashMap<&str, &str> = texts.iter().map(|named| (named.file.as_str(), named.text.as_str())).collect();
    let mut counts: BTreeMap<Severity, usize> = BTreeMap::new();
    for Finding { diagnostic, .. } in findings {
        anstream::println!("{}", told_of(diagnostic, texts.get(diagnostic.file.as_str()).copied()));
        *counts.entry(diagnostic.severity).or_default() += 1;
    }
    if findings.is_empty() {
        anstream::println!("{GOOD}✓{PLAIN} no findings");
        return;
    }
    let count = |(severity, count): (&Severity, &usize)| match (severity, count) {
        (Severity::Info, count) => format!("{count} info"),
        (severity, 1) => format!("1 {severity}"),
        (severity, count) => format!("{count} {severity}s"),
    };
    let counts: Vec<String> = counts.iter().rev().map(count).collect();
    anstream::println!("\n{}; `lateen explain CODE` says more of each", counts.join(", "));
}

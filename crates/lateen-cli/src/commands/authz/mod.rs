//! `lateen authz check`: the policies that hold for a pod and, of a request, whether it may pass and who says so.

mod report;
pub(super) mod request;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use lateen_api::Object;
use lateen_api::similar::did_you_mean;
use lateen_mesh::{Mesh, assume};
use lateen_translate::AuthorizationView;

use super::apply::running;
use super::{Output, StateOption, WRONG};
use request::RequestOptions;
use verdict::Verdict;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which policies hold for a pod and, given a request, whether it may pass and which rule decides.
    ///
    /// The rules are evaluated by the code that proxies run, on the configuration that the pod's proxy is sent. Ends with 1
    /// if the request is denied.
    Check(Box<Check>),
}

#[derive(Debug, Args)]
struct Check {
    /// Name of the pod; with -f, a Deployment NAME has the pods NAME-0, NAME-1, …
    pod: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Objects to look at in place of the running mesh.
    #[arg(short, long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The mesh config that belongs to the files.
    #[arg(long, value_name = "FILE", requires = "files")]
    mesh_config: Option<PathBuf>,
    #[command(flatten)]
    request: RequestOptions,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Check(check) = &arguments.command;
    let world = World::open(check)?;
    let view = world.view(&check.namespace, &check.pod)?;
    let verdict = match check.request.read(&world)? {
        None => None,
        Some(request) => Some(Verdict::of(&view, &request)?),
    };
    match check.output {
        Output::Table => report::table(&view, verdict.as_ref()),
        Output::Json => anstream::println!("{:#}", report::json(&view, verdict.as_ref())),
    }
    let passes = verdict.is_none_or(|verdict| verdict.allowed);
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// Where pods are looked up.
enum World {
    Files(Box<Mesh>),
    Running(crate::api::ControlPlane),
}

impl World {
    fn open(check: &Check) -> anyhow::Result<Self> {
        if check.files.is_empty() {
            return running(&check.state).map(Self::Running);
        }
        let config = lateen_control::mesh_settings::load(check.mesh_config.as_deref())?.config;
        let mut objects: Vec<Object> = Vec::new();
        for file in &check.files {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let parsed = lateen_api::parse_documents(&file.display().to_string(), &text, "default");
            let found = parsed.diagnostics.iter().filter(|found| found.is_error());
            let mut errors: Vec<String> = found.map(ToString::to_string).collect();
            let checked = parsed.objects.iter().flat_map(lateen_api::validate);
            errors.extend(checked.filter(|found| found.is_error()).map(|found| found.to_string()));
            if !errors.is_empty() {
                bail!("the objects cannot be used\n{}", errors.join("\n"));
            }
            objects.extend(parsed.objects);
        }
        let aged: Vec<Object> = objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect();
        Ok(Self::Files(Box::new(Mesh::build(&assume::running(&aged), &Arc::new(config), None))))
    }

    /// What holds for a pod.
    fn view(&self, namespace: &str, pod: &str) -> anyhow::Result<AuthorizationView> {
        let found = match self {
            Self::Files(mesh) => AuthorizationView::of(mesh, namespace, pod),
            Self::Running(control_plane) => super::block_on(control_plane.authorization(namespace, pod))?,
        };
        found.with_context(|| self.unknown(namespace, pod))
    }

    fn unknown(&self, namespace: &str, pod: &str) -> String {
        let Self::Files(mesh) = self else {
            return format!("there is no pod `{pod}` in namespace `{namespace}`; `lateen get pods -A` shows them");
        };
        let pods: Vec<&str> = mesh
            .workloads()
            .filter(|workload| &*workload.namespace == namespace)
            .map(|workload| &*workload.name)
            .collect();
        match did_you_mean(pod, &pods) {
            Some(meant) => format!("there is no pod `{pod}` in namespace `{namespace}`, did you mean `{meant}`?"),
            None => format!("there is no pod `{pod}` in namespace `{namespace}`; there are: {}", pods.join(", ")),
        }
    }
}

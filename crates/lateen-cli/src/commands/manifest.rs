//! `lateen manifest generate`: the objects of an installation, without a cluster.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use lateen_control::manifest::{Objects, Profile, Values};
use serde_json::Value;

use super::Misuse;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the objects of an installation, to be applied in this order.
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Generate {
    #[command(flatten)]
    choice: Choice,
    /// Without the definitions of kinds (CRDs).
    #[arg(long)]
    skip_crds: bool,
}

/// What is to be installed.
#[derive(Debug, Clone, Args)]
pub(super) struct Choice {
    /// default: for production. minimal: one replica, the least that works. demo: one replica, and an ingress gateway.
    #[arg(long, value_name = "NAME", value_parser = ["default", "minimal", "demo"])]
    pub(super) profile: Option<String>,
    /// A setting, such as replicas=3 or meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,
    /// The revision: a name for a control plane beside others.
    #[arg(long, value_name = "NAME")]
    pub(super) revision: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a key and a value are expected, as in replicas=3")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl Choice {
    /// The name of its profile.
    pub(super) fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }

    /// Its `key=value` pairs.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let revision = self.revision.iter().map(|name| ("revision".to_owned(), name.clone()));
        self.set.iter().cloned().chain(revision).collect()
    }

    pub(super) fn values(&self) -> anyhow::Result<Values> {
        let profile = Profile::named(self.profile()).context("clap knows the profiles")?;
        Values::new(profile, &self.pairs()).map_err(|wrong| Misuse::of(wrong.join("\n")))
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Generate(Generate { choice, skip_crds }) = &arguments.command;
    let objects = Objects::new(&choice.values()?).map_err(anyhow::Error::msg)?;
    let wanted: Vec<&Value> =
        objects.all().filter(|object| !*skip_crds || object["kind"] != "CustomResourceDefinition").collect();
    anstream::print!("{}", yaml(&wanted)?);
    Ok(ExitCode::SUCCESS)
}

/// Objects as a text of YAML.
fn yaml(objects: &[&Value]) -> anyhow::Result<String> {
    let texts: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(texts.context("write YAML")?.join("---\n"))
}

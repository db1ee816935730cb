//! `lateen inject`: what the injector makes of files, without a mesh.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lateen_api::Diagnostic;
use lateen_api::yaml::documents;
use lateen_control::inject::config::CONFIG_KEY;
use lateen_control::inject::workloads::{Done, Text, inject_texts};
use lateen_control::inject::{InjectorConfig, NotInjected, Settings, SidecarForm};

use super::apply::{Input, complain};
use super::{Misuse, WRONG};
use crate::runtime::paint::{FAINT, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Form,
    /// How the proxy stands in its pod, where the pod does not say: an init container that goes on running, or a container
    /// beside the others, for clusters before 1.29.
    #[arg(long, value_enum, default_value = "native")]
    sidecar: Sidecar,
    /// Image of the proxy.
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// Image of the container that redirects the traffic.
    #[arg(long, value_name = "IMAGE")]
    init_image: Option<String>,
    /// When they are pulled.
    #[arg(long, value_enum)]
    image_pull_policy: Option<PullPolicy>,
    /// A Secret that pods need to pull them; may be repeated.
    #[arg(long, value_name = "SECRET")]
    image_pull_secret: Vec<String>,
    /// The control plane's revision: pods that ask for another are left alone.
    #[arg(long, value_name = "NAME", default_value = "default")]
    revision: String,
    /// HOST:PORT of the control plane, as pods reach it [default: lateend.istio-system.svc:15012].
    #[arg(long, value_name = "ADDR")]
    discovery_address: Option<String>,
    /// The mesh's trust domain.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// A file with the injector's configuration: the ConfigMap istio-sidecar-injector, or what is under its key `config`.
    #[arg(long, value_name = "FILE")]
    injector_config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sidecar {
    Native,
    Classic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings()?;
    let texts = arguments.input.read()?;
    let given: Vec<Text<'_>> = texts.iter().map(|named| Text { name: &named.file, text: &named.text }).collect();
    let done = inject_texts(&given, &arguments.input.namespace, &settings);
    complain(&done.diagnostics, &texts);
    if done.diagnostics.iter().any(Diagnostic::is_error) {
        return Ok(ExitCode::from(WRONG));
    }
    tell_of_the_others(&done);
    match arguments.output {
        Form::Yaml => {
            for (at, object) in done.objects.iter().enumerate() {
                let before = if at == 0 { "" } else { "---\n" };
                anstream::print!("{before}{}", serde_saphyr::to_string(object).context("write YAML")?);
            }
        }
        Form::Json => match done.objects.as_slice() {
            [object] => anstream::println!("{object:#}"),
            objects => {
                let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
                anstream::println!("{list:#}");
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Who got no proxy, and why.
fn tell_of_the_others(done: &Done) {
    for (object, why) in &done.left {
        anstream::eprintln!("{FAINT}{object} is left as it is: {why}{PLAIN}");
    }
    let has_any = done.injected > 0 || done.left.iter().any(|(_, why)| *why == NotInjected::Already);
    if !has_any && done.left.is_empty() {
        anstream::eprintln!("{FAINT}there is nothing among these objects that makes pods{PLAIN}");
    }
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let usual = Settings::on_kubernetes();
        let config = match &self.injector_config {
            None => InjectorConfig::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                config(&text).map_err(|error| Misuse::of(format!("{}: {error}", path.display())))?
            }
        };
        Ok(Settings {
            proxy_image: self.proxy_image.clone().unwrap_or(usual.proxy_image),
            init_image: self.init_image.clone().unwrap_or(usual.init_image),
            image_pull_policy: self.image_pull_policy.map(|policy| format!("{policy:?}")),
            image_pull_secrets: self.image_pull_secret.clone(),
            revision: self.revision.clone(),
            discovery_address: self.discovery_address.clone().unwrap_or(usual.discovery_address),
            trust_domain: self.trust_domain.clone(),
            form: match self.sidecar {
                Sidecar::Native => SidecarForm::Native,
                Sidecar::Classic => SidecarForm::Classic,
            },
            config,
            ..Settings::on_kubernetes()
        })
    }
}

/// The ConfigMap, or what is in it.
fn config(text: &str) -> Result<InjectorConfig, String> {
    let first = documents(text).into_iter().next().and_then(Result::ok).map(|tree| tree.to_json());
    match first {
        Some(map) if map["kind"] == "ConfigMap" && !map["data"][CONFIG_KEY].is_null() => {
            InjectorConfig::from_config_map(&map)
        }
        _ => InjectorConfig::from_yaml(text),
    }
}

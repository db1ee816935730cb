//! `lateen proxy-config`: the configuration that a proxy holds, as it says itself at its admin port, or as a dump of it says:
//! listeners, routes, clusters, endpoints, secrets. The columns are those of `istioctl proxy-config`.

mod clusters;
mod dump;
mod endpoints;
mod listeners;
mod log;
mod routes;
mod secrets;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::columns::columns;
use super::{Misuse, Output, StateOption, pods, proxies};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Where it takes connections, and what becomes of them.
    #[command(visible_aliases = ["listeners", "l"])]
    Listener(listeners::Arguments),
    /// Which requests go where.
    #[command(visible_aliases = ["routes", "r"])]
    Route(routes::Arguments),
    /// Whom it can call.
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster(clusters::Arguments),
    /// The addresses behind the clusters, and how they are.
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint(endpoints::Arguments),
    /// Certificates and trusted roots, without their keys.
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(secrets::Arguments),
    /// To which levels it logs; with --level, others from now on.
    Log(log::Arguments),
    /// All of it.
    #[command(visible_alias = "a")]
    All(Of),
}

/// Whose configuration, and how it is shown.
#[derive(Debug, Args)]
struct Of {
    /// The pod: NAME or NAME.NAMESPACE, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment.
    #[arg(required_unless_present = "file")]
    pod: Option<String>,
    /// The pod's namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// A dump instead: what a proxy answers to /config_dump?include_eds, or `-` for standard input.
    #[arg(short, long, conflicts_with_all = ["pod", "namespace"])]
    file: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let shown = match &arguments.part {
        Part::Listener(own) => show(&own.of, |dump| listeners::found(own, dump), listeners::table)?,
        Part::Route(own) => show(&own.of, |dump| routes::found(own, dump), routes::table)?,
        Part::Cluster(own) => show(&own.of, |dump| clusters::found(own, dump), clusters::table)?,
        Part::Endpoint(own) => endpoints::show(own)?,
        Part::Secret(own) => show(&own.of, secrets::found, secrets::table)?,
        Part::Log(own) => log::run(own)?,
        Part::All(of) => all(of)?,
    };
    anstream::println!("{shown}");
    Ok(ExitCode::SUCCESS)
}

/// What was chosen of a dump, as rows or as it is.
fn show(
    of: &Of,
    choose: impl FnOnce(&Value) -> Vec<Value>,
    table: impl FnOnce(&[Value]) -> String,
) -> anyhow::Result<String> {
    let found = choose(&of.dump()?);
    Ok(match of.output {
        Output::Json => format!("{:#}", Value::Array(found)),
        Output::Table => table(&found),
    })
}

fn all(of: &Of) -> anyhow::Result<String> {
    let dump = of.dump()?;
    if of.output == Output::Json {
        return Ok(format!("{dump:#}"));
    }
    Ok(format!("{}\n\n{}", tables(&dump), secrets::table(&secrets::found(&dump))))
}

/// What a dump says of clusters, listeners and routes.
pub(super) fn tables(dump: &Value) -> String {
    let parts = [
        clusters::table(&dump::clusters(dump)),
        listeners::table(&dump::listeners(dump)),
        routes::table(&dump::routes(dump)),
    ];
    parts.join("\n\n")
}

impl Of {
    /// The whole configuration.
    fn dump(&self) -> anyhow::Result<Value> {
        let text = match &self.file {
            Some(file) => read(file)?,
            None => self.ask("/config_dump?include_eds")?,
        };
        let dump: Value = serde_json::from_str(&text).context("the dump is not JSON")?;
        if !dump["configs"].is_array() {
            bail!("the dump has no `configs`: what /config_dump answers is expected");
        }
        Ok(dump)
    }

    /// What the proxy answers.
    fn ask(&self, path: &str) -> anyhow::Result<String> {
        ask(self.pod.as_deref().unwrap_or_default(), self.namespace.as_deref(), &self.state, "GET", path)
    }
}

/// What the proxy of a pod answers, which is `NAME` or `NAME.NAMESPACE`.
fn ask(pod: &str, namespace: Option<&str>, state: &StateOption, method: &str, path: &str) -> anyhow::Result<String> {
    let (name, namespace) = match (namespace, pod.split_once('.')) {
        (Some(namespace), Some((_, other))) if namespace != other => {
            return Err(Misuse::of(format!("{pod} and --namespace {namespace} name two namespaces")));
        }
        (_, Some((name, namespace))) => (name, namespace),
        (Some(namespace), None) => (pod, namespace),
        (None, None) => (pod, "default"),
    };
    let state = state.open()?;
    state.require_running()?;
    let pod = pods::find(&state, namespace, name)?;
    if !proxies::has_proxy(&pod) {
        bail!("there is no proxy in pod {}.{}", pod.name(), pod.namespace());
    }
    super::block_on(proxies::ask(&state, &pod, method, path))
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// Rows below a header, or a word where there are none.
fn rows(header: &[&str], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() { none.to_owned() } else { columns(header, rows) }
}

/// The objects that something came from, as `name.namespace`, of one kind.
fn origins(resource: &Value, kind: &str) -> String {
    let list = resource["metadata"]["filter_metadata"]["lateen"]["origin"].as_array();
    let own = list.into_iter().flatten().filter(|origin| origin["kind"] == kind);
    let names: Vec<String> =
        own.map(|origin| format!("{}.{}", text(&origin["name"]), text(&origin["namespace"]))).collect();
    names.join(",")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `address:port`, or the path of a Unix socket.
fn address(value: &Value) -> (String, String) {
    let socket = &value["socket_address"];
    match value["pipe"]["path"].as_str() {
        Some(path) => (format!("unix://{path}"), String::new()),
        None => (text(&socket["address"]).to_owned(), socket["port_value"].as_u64().unwrap_or_default().to_string()),
    }
}

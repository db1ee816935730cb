//! `lateen get`: objects as a table, YAML or JSON.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use lateen_api::Kind;
use serde_json::{Value, json};

use super::apply::running;
use super::{StateOption, WRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Kind, plural or short name: vs, virtualservices, pods, svc …
    kind: String,
    name: Option<String>,
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Yaml,
    Json,
    Name,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let control_plane = running(&arguments.state)?;
    let kind: Kind = arguments.kind.parse().map_err(|_| {
        let known: Vec<String> = Kind::ALL.iter().map(|kind| kind.plural().to_owned()).collect();
        anyhow::anyhow!("there is no kind `{}`; there are {}", arguments.kind, known.join(", "))
    })?;
    let namespace = (kind.is_namespaced() && !arguments.all_namespaces).then_some(arguments.namespace.as_str());
    let items = super::block_on(control_plane.objects(kind, namespace, arguments.name.as_deref()))?;
    if let (Some(name), true) = (&arguments.name, items.is_empty()) {
        anyhow::bail!("{} \"{name}\" not found", kind.plural());
    }
    match arguments.output {
        Output::Json => anstream::println!("{:#}", shown(arguments, items)),
        Output::Yaml => anstream::print!("{}", serde_saphyr::to_string(&shown(arguments, items))?),
        Output::Name => items
            .iter()
            .for_each(|item| anstream::println!("{}/{}", kind.name().to_lowercase(), text(item, "/metadata/name"))),
        Output::Table if items.is_empty() => {
            anstream::eprintln!(
                "no {} found{}",
                kind.plural(),
                namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default()
            );
            return Ok(if arguments.name.is_some() { ExitCode::from(WRONG) } else { ExitCode::SUCCESS });
        }
        Output::Table => table(kind, &items, arguments.all_namespaces),
    }
    Ok(ExitCode::SUCCESS)
}

/// One object asked for by name is shown as itself, others as a list.
fn shown(arguments: &Arguments, mut items: Vec<Value>) -> Value {
    if arguments.name.is_some() && items.len() == 1 {
        return items.remove(0);
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn text(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// What of a kind is worth a column.
fn columns(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::VirtualService => &[("GATEWAYS", "/spec/gateways"), ("HOSTS", "/spec/hosts")],
        Kind::DestinationRule => &[("HOST", "/spec/host")],
        Kind::ServiceEntry => {
            &[("HOSTS", "/spec/hosts"), ("LOCATION", "/spec/location"), ("RESOLUTION", "/spec/resolution")]
        }
        Kind::Service => &[("TYPE", "/spec/type"), ("CLUSTER-IP", "/spec/clusterIP")],
        Kind::Deployment => &[("REPLICAS", "/spec/replicas")],
        Kind::Pod => &[("STATUS", "/status/phase"), ("ADDRESS", "/status/podIP")],
        Kind::PeerAuthentication => &[("MODE", "/spec/mtls/mode")],
        Kind::AuthorizationPolicy => &[("ACTION", "/spec/action")],
        _ => &[],
    }
}

fn table(kind: Kind, items: &[Value], namespaces: bool) {
    let columns = columns(kind);
    let mut table = Table::new();
    let mut header: Vec<&str> = if namespaces { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
    header.extend(columns.iter().map(|(name, _)| *name));
    header.push("FROM");
    table.load_style(presets::NOTHING).set_header(header);
    for item in items {
        let mut row = Vec::new();
        if namespaces {
            row.push(text(item, "/metadata/namespace"));
        }
        row.push(text(item, "/metadata/name"));
        row.extend(columns.iter().map(|(_, pointer)| text(item, pointer)));
        row.push(text(item, "/metadata/annotations/lateen.dev~1origin"));
        table.add_row(row);
    }
    anstream::println!("{}", table.trim_fmt());
}

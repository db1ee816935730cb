//! Clusters: whom the proxy can call, and which rule says how.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Of, dump, origins, rows, text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) of: Of,
    /// Only of this service, by its full name or the beginning of it.
    #[arg(long)]
    fqdn: Option<String>,
    /// Only of this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only of this subset.
    #[arg(long)]
    subset: Option<String>,
    #[arg(long, value_enum)]
    direction: Option<Direction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What a cluster's name says: `direction|port|subset|host`.
struct Name<'a> {
    host: &'a str,
    port: &'a str,
    subset: &'a str,
    direction: &'a str,
}

impl<'a> Name<'a> {
    fn of(cluster: &'a Value) -> Self {
        let name = text(&cluster["name"]);
        match name.splitn(4, '|').collect::<Vec<_>>()[..] {
            [direction, port, subset, host] => Self { host, port, subset, direction },
            _ => Self { host: name, port: "-", subset: "-", direction: "-" },
        }
    }
}

pub(super) fn found(arguments: &Arguments, dump: &Value) -> Vec<Value> {
    let mut clusters = dump::clusters(dump);
    clusters.retain(|cluster| {
        let name = Name::of(cluster);
        arguments.fqdn.as_ref().is_none_or(|wanted| name.host.starts_with(wanted.as_str()))
            && arguments.port.is_none_or(|wanted| name.port == wanted.to_string())
            && arguments.subset.as_ref().is_none_or(|wanted| name.subset == wanted)
            && arguments.direction.is_none_or(|wanted| name.direction == wanted.word())
    });
    clusters.sort_by(|one, other| {
        let key = |cluster| {
            let Name { host, port, subset, direction } = Name::of(cluster);
            (host, port.parse::<u16>().unwrap_or_default(), subset, direction)
        };
        key(one).cmp(&key(other))
    });
    clusters
}

pub(super) fn table(clusters: &[Value]) -> String {
    let row = |cluster: &Value| {
        let Name { host, port, subset, direction } = Name::of(cluster);
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            or_dash(host),
            or_dash(port),
            or_dash(subset),
            or_dash(direction),
            kind(cluster),
            origins(cluster, "DestinationRule"),
        ]
    };
    let header = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"];
    rows(&header, &clusters.iter().map(row).collect::<Vec<_>>(), "no clusters")
}

fn kind(cluster: &Value) -> String {
    match cluster["cluster_type"]["name"].as_str() {
        Some(name) => name.rsplit('.').next().unwrap_or(name).to_owned(),
        None => cluster["type"].as_str().unwrap_or("STATIC").to_owned(),
    }
}

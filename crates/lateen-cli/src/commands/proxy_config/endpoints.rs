//! Endpoints: each address of each cluster, and what the proxy thinks of it.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::{Of, address, dump, rows, text};
use crate::commands::Output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) of: Of,
    /// Only of this cluster.
    #[arg(long)]
    cluster: Option<String>,
    /// Only at this IP address.
    #[arg(long)]
    address: Option<String>,
    /// Only on this port.
    #[arg(long)]
    port: Option<u16>,
}

/// An endpoint, as a row and as JSON.
struct Row {
    address: String,
    port: String,
    status: String,
    /// Whether outlier detection keeps it out; a dump does not say.
    outlier: &'static str,
    cluster: String,
}

pub(super) fn show(arguments: &Arguments) -> anyhow::Result<String> {
    let mut found = if arguments.of.file.is_some() {
        of_dump(&arguments.of.dump()?)
    } else {
        let text = arguments.of.ask("/clusters?format=json")?;
        of_clusters(&serde_json::from_str(&text).context("the proxy's clusters are not JSON")?)
    };
    found.retain(|row| {
        arguments.cluster.as_ref().is_none_or(|wanted| *wanted == row.cluster)
            && arguments.address.as_ref().is_none_or(|wanted| *wanted == row.address)
            && arguments.port.is_none_or(|wanted| wanted.to_string() == row.port)
    });
    found.sort_by(|one, other| {
        (&one.cluster, &one.address, &one.port).cmp(&(&other.cluster, &other.address, &other.port))
    });
    Ok(match arguments.of.output {
        Output::Json => format!("{:#}", found.iter().map(Row::json).collect::<Value>()),
        Output::Table => table(&found),
    })
}

/// As the proxy says at `/clusters` (`envoy.admin.v3.Clusters`).
fn of_clusters(clusters: &Value) -> Vec<Row> {
    let mut out = Vec::new();
    for cluster in clusters["cluster_statuses"].as_array().into_iter().flatten() {
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let (address, port) = address(&host["address"]);
            let health = &host["health_status"];
            let out_of_it = health["failed_outlier_check"] == true;
            out.push(Row {
                address,
                port,
                status: health["eds_health_status"].as_str().unwrap_or("HEALTHY").to_owned(),
                outlier: if out_of_it { "FAILED" } else { "OK" },
                cluster: text(&cluster["name"]).to_owned(),
            });
        }
    }
    out
}

fn of_dump(dump: &Value) -> Vec<Row> {
    let mut out = Vec::new();
    for assignment in dump::assignments(dump) {
        let localities = assignment["endpoints"].as_array().into_iter().flatten();
        for host in localities.flat_map(|locality| locality["lb_endpoints"].as_array().into_iter().flatten()) {
            let (address, port) = address(&host["endpoint"]["address"]);
            out.push(Row {
                address,
                port,
                status: host["health_status"].as_str().unwrap_or("UNKNOWN").to_owned(),
                outlier: "-",
                cluster: text(&assignment["cluster_name"]).to_owned(),
            });
        }
    }
    out
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "address": self.address, "port": self.port.parse::<u16>().ok(), "status": self.status,
            "outlierCheck": self.outlier, "cluster": self.cluster,
        })
    }
}

fn table(found: &[Row]) -> String {
    let row = |row: &Row| {
        let endpoint = if row.port.is_empty() { row.address.clone() } else { format!("{}:{}", row.address, row.port) };
        vec![endpoint, row.status.clone(), row.outlier.to_owned(), row.cluster.clone()]
    };
    let header = ["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"];
    rows(&header, &found.iter().map(row).collect::<Vec<_>>(), "no endpoints")
}

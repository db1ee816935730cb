//! `lateen translate`: what a proxy would be told because of files, as `lateen proxy-config` shows what it was told.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use lateen_translate::{Named, type_url};
use lateen_xds::json::any_to_json;
use serde_json::{Value, json};

use super::world::WorldOptions;
use super::{Misuse, Output, proxy_config};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Whose proxy: a pod, a Deployment or an app, as NAME or NAME.NAMESPACE.
    #[arg(long, value_name = "WORKLOAD")]
    proxy: String,
    #[command(flatten)]
    world: WorldOptions,
    /// Form of the output; json is a dump that `lateen proxy-config -f` takes.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let world = arguments.world.open()?;
    let resources = world.told(&arguments.proxy, &arguments.world.namespace);
    let dump = dump(&resources.map_err(|why| Misuse::of(why.to_string()))?)?;
    match arguments.output {
        Output::Json => anstream::println!("{dump:#}"),
        Output::Table => anstream::println!("{}", proxy_config::tables(&dump)),
    }
    Ok(ExitCode::SUCCESS)
}

/// `envoy.admin.v3.ConfigDump`, with everything in force.
fn dump(resources: &[Arc<Named>]) -> anyhow::Result<Value> {
    let section = |message: &str, list: &str, of: &str, wrap: fn(Value) -> Value| -> anyhow::Result<Value> {
        let own = resources.iter().filter(|named| named.type_url == of);
        let entries = own.map(|named| {
            let any = named.to_any();
            let shown = any_to_json(&any.type_url, &any.value).with_context(|| format!("show {}", named.name))?;
            Ok(wrap(shown))
        });
        let entries: Vec<Value> = entries.collect::<anyhow::Result<_>>()?;
        Ok(json!({ "@type": format!("type.googleapis.com/envoy.admin.v3.{message}"), list: entries }))
    };
    Ok(json!({"configs": [
        section("ClustersConfigDump", "dynamic_active_clusters", type_url::CLUSTER, |it| json!({"cluster": it}))?,
        section("EndpointsConfigDump", "dynamic_endpoint_configs", type_url::ENDPOINT, |it| json!({"endpoint_config": it}))?,
        section("ListenersConfigDump", "dynamic_listeners", type_url::LISTENER, |it| {
            json!({"name": it["name"], "active_state": {"listener": it}})
        })?,
        section("RoutesConfigDump", "dynamic_route_configs", type_url::ROUTE, |it| json!({"route_config": it}))?,
    ]}))
}

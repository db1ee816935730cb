//! `lateen proxy-status`: every connected proxy, and whether it runs what it should.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::apply::running;
use super::columns::columns;
use super::{Output, StateOption, WRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let control_plane = running(&arguments.state)?;
    let answer = super::block_on(control_plane.proxies())?;
    let proxies = answer["proxies"].as_array().map(Vec::as_slice).unwrap_or_default();
    match arguments.output {
        Output::Json => anstream::println!("{answer:#}"),
        Output::Table => table(proxies),
    }
    let fine = proxies.iter().all(|proxy| proxy["state"] != "rejected");
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

fn table(proxies: &[Value]) {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = ["id", "type", "address", "state", "revision"];
    let rows: Vec<Vec<String>> = proxies.iter().map(|proxy| fields.map(|field| word(&proxy[field])).to_vec()).collect();
    anstream::println!("{}", columns(&["NAME", "TYPE", "ADDRESS", "STATE", "REVISION"], &rows));
    for proxy in proxies {
        for error in proxy["errors"].as_array().into_iter().flatten() {
            anstream::println!("{}: {}", word(&proxy["id"]), word(&error["message"]));
        }
    }
}

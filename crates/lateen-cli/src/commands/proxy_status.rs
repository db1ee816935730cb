//! `lateen proxy-status`: every connected proxy, and whether it runs what it should.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::apply::running;
use super::{StateOption, WRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "TYPE", "STATE", "REVISION"]);
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for proxy in proxies {
        table.add_row([word(&proxy["id"]), word(&proxy["type"]), word(&proxy["state"]), word(&proxy["revision"])]);
    }
    anstream::println!("{}", table.trim_fmt());
    for proxy in proxies {
        for error in proxy["errors"].as_array().into_iter().flatten() {
            anstream::println!("{}: {}", word(&proxy["id"]), word(&error["message"]));
        }
    }
}

//! `lateen explain CODE`: what a message code means, and what to do about it.

use std::process::ExitCode;

use lateen_analyze::catalog::{self, Entry};
use lateen_api::similar::did_you_mean;
use serde_json::{Value, json};

use crate::commands::Misuse;
use crate::commands::columns::columns;
use crate::runtime::paint::{FAINT, PLAIN, STRONG};

/// Of one code, or a list of all.
pub(super) fn run(code: Option<&str>, as_json: bool) -> anyhow::Result<ExitCode> {
    match (code, as_json) {
        (None, true) => anstream::println!("{:#}", catalog::all().map(json_of).collect::<Value>()),
        (None, false) => {
            let row = |entry: &Entry| vec![entry.code.to_owned(), entry.severity.to_string(), entry.name.to_owned()];
            let rows: Vec<Vec<String>> = catalog::all().map(row).collect();
            anstream::println!("{}", columns(&["CODE", "LEVEL", "NAME"], &rows));
        }
        (Some(code), true) => anstream::println!("{:#}", json_of(find(code)?)),
        (Some(code), false) => tell(find(code)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn find(code: &str) -> anyhow::Result<&'static Entry> {
    catalog::find(code).ok_or_else(|| {
        let known: Vec<&str> = catalog::all().flat_map(|entry| [entry.code, entry.name]).collect();
        let meant = did_you_mean(code, &known).map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
        Misuse::of(format!("`{code}` is no message code{meant} (`lateen explain` lists them)"))
    })
}

fn tell(entry: &Entry) {
    anstream::println!("{STRONG}{} {}{PLAIN} {FAINT}({}){PLAIN}\n", entry.code, entry.name, entry.severity);
    anstream::println!("{}", entry.meaning);
    match entry.never {
        Some(reason) => anstream::println!("\nIt is never given here: {reason}."),
        None => anstream::println!("\nWhat to do: {}", entry.remedy),
    }
}

fn json_of(entry: &Entry) -> Value {
    json!({
        "code": entry.code,
        "name": entry.name,
        "severity": entry.severity,
        "meaning": entry.meaning,
        "remedy": entry.remedy,
        "neverGiven": entry.never,
    })
}

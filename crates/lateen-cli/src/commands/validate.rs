//! `lateen validate`: whether each object is well-formed and keeps the rules of its kind, whatever else there is.

use std::process::ExitCode;

use clap::Args;
use lateen_analyze::Text;
use lateen_api::Diagnostic;

use super::apply::{Input, complain};
use super::{Output, WRONG};
use crate::runtime::paint::{GOOD, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let texts = arguments.input.read()?;
    let given: Vec<Text<'_>> = texts.iter().map(|named| Text { name: &named.file, text: &named.text }).collect();
    let (count, found) = lateen_analyze::validate(&given, &arguments.input.namespace);
    let is_wrong = found.iter().any(Diagnostic::is_error);
    match arguments.output {
        Output::Json => anstream::println!("{:#}", serde_json::to_value(&found)?),
        Output::Table => {
            complain(&found, &texts);
            if !is_wrong {
                let objects = if count == 1 { "object is" } else { "objects are" };
                anstream::println!("{GOOD}✓{PLAIN} {count} {objects} valid");
            }
        }
    }
    Ok(if is_wrong { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

//! `lateen ca`: the certificate authority of the running mesh, and how its root is replaced.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::StateOption;
use super::apply::running;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the authority's roots, and where it stands between one root and the next.
    Status {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
        #[command(flatten)]
        state: StateOption,
    },
    /// Take the next step from one root to the next: trust a new one, sign with it, trust the old one no more.
    Rotate {
        /// Even where somebody would be cut off.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        state: StateOption,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (answer, output) = match &arguments.command {
        Command::Status { output, state } => {
            let control_plane = running(state)?;
            (super::block_on(control_plane.authority())?, *output)
        }
        Command::Rotate { force, state } => {
            let control_plane = running(state)?;
            (super::block_on(control_plane.rotate_authority(*force))?, Output::Text)
        }
    };
    match output {
        Output::Json => anstream::println!("{answer:#}"),
        Output::Text => anstream::println!("{}", text(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let roots: Vec<String> = answer["roots"].as_array().into_iter().flatten().map(word).collect();
    let mut lines = vec![format!("{} trusted, until {}", counted(roots.len()), roots.join(", "))];
    let due = word(&answer["rotation"]["due"]);
    lines.push(match answer["rotation"]["stage"].as_str() {
        Some("settled") => format!("the next root is introduced at {due}; now by `lateen ca rotate`"),
        Some("introduced") => format!("the next root is trusted, and signs from {due}; now by `lateen ca rotate`"),
        Some("retiring") => format!("the next root signs; the last one is trusted until {due}"),
        _ => "the authority is plugged in: its root is replaced by replacing its files".to_owned(),
    });
    lines.join("\n")
}

fn counted(roots: usize) -> String {
    if roots == 1 { "1 root is".to_owned() } else { format!("{roots} roots are") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_stage_says_what_comes_next() {
        let answer = |stage: &str| {
            let rotation = json!({"stage": stage, "due": "2030-01-01T00:00:00Z"});
            json!({"pluggedIn": false, "roots": ["2035-01-01T00:00:00Z"], "rotation": rotation})
        };
        assert_eq!(
            text(&answer("settled")),
            "1 root is trusted, until 2035-01-01T00:00:00Z\n\
             the next root is introduced at 2030-01-01T00:00:00Z; now by `lateen ca rotate`"
        );
        assert!(text(&answer("introduced")).contains("signs from 2030"));
        assert!(text(&answer("retiring")).ends_with("trusted until 2030-01-01T00:00:00Z"));
        let plugged_in = json!({"pluggedIn": true, "roots": ["a", "b"]});
        assert!(text(&plugged_in).starts_with("2 roots are trusted, until a, b\nthe authority is plugged in"));
    }
}

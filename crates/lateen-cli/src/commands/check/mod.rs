//! `lateen check`: whether a cluster can take the mesh, and whether the mesh on it is well; each failure with what to do about it.

mod cluster;
mod installed;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use kube::Client;

use super::WRONG;
use crate::cluster::Connection;
use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN, STRONG, WARNING};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only what has to be true before an installation.
    #[arg(long)]
    pre: bool,
    /// Look again until all is well, for at most this many seconds.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// What a look at something gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, and somebody should know.
    Doubtful(Trouble),
    Bad(Trouble),
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    what: String,
    fix: String,
}

impl Verdict {
    fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Bad(Trouble { what: what.into(), fix: fix.into() })
    }

    fn doubtful(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Doubtful(Trouble { what: what.into(), fix: fix.into() })
    }
}

/// What was looked at, under its category.
#[derive(Debug)]
struct Check {
    category: &'static str,
    name: String,
    verdict: Verdict,
}

/// Gathers what was looked at.
#[derive(Debug, Default)]
struct Report {
    checks: Vec<Check>,
}

impl Report {
    fn note(&mut self, category: &'static str, name: impl Into<String>, verdict: Verdict) {
        self.checks.push(Check { category, name: name.into(), verdict });
    }

    fn has_failed(&self) -> bool {
        self.checks.iter().any(|check| matches!(check.verdict, Verdict::Bad(_)))
    }

    fn tell(&self) {
        let mut category = "";
        for check in &self.checks {
            if check.category != category {
                category = check.category;
                anstream::println!("{STRONG}{category}{PLAIN}");
            }
            let (mark, colour, trouble) = match &check.verdict {
                Verdict::Good => ("ok", GOOD, None),
                Verdict::Doubtful(trouble) => ("!!", WARNING, Some(trouble)),
                Verdict::Bad(trouble) => ("xx", ERROR, Some(trouble)),
            };
            anstream::println!("  {colour}{mark}{PLAIN} {}", check.name);
            if let Some(Trouble { what, fix }) = trouble {
                anstream::println!("     {what}\n     {FAINT}{fix}{PLAIN}");
            }
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        let client = arguments.connection.client().await?;
        let deadline = Instant::now() + Duration::from_secs(arguments.wait.unwrap_or_default());
        loop {
            let report = look(&client, arguments.pre).await?;
            if !report.has_failed() || Instant::now() >= deadline {
                report.tell();
                return Ok(if report.has_failed() { ExitCode::from(WRONG) } else { ExitCode::SUCCESS });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

async fn look(client: &Client, pre: bool) -> anyhow::Result<Report> {
    let mut report = Report::default();
    // Without an API server there is nothing else to look at.
    if cluster::look(client, pre, &mut report).await? && !pre {
        installed::look(client, &mut report).await?;
    }
    Ok(report)
}

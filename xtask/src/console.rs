//! `cargo xtask console`: builds the web console with Node, for lateend's build to put into the program; and its tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use crate::install::from_archive;
use crate::{root, run};

/// What the console is built of.
const SOURCES: [&str; 7] =
    ["src", "public", "index.html", "package-lock.json", "svelte.config.js", "tsconfig.json", "vite.config.ts"];

pub(crate) fn main(arguments: &[String]) -> anyhow::Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] if build()? => Ok(()),
        [] => bail!("Node and npm are not installed, or too old: Node 20 and npm 10 build the console"),
        ["test", ref rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
            if !build()? {
                bail!("Node and npm are not installed");
            }
            // Before the programs, so that lateend has the console.
            run(crate::cargo().args(["build", "--workspace", "--bins"]))?;
            test(&rest)
        }
        _ => bail!("cargo xtask console [test [ARG…]]"),
    }
}

/// Builds it if it is older than what it is built of. False, having said so, where there is no Node; under CI that is an error.
pub(crate) fn build() -> anyhow::Result<bool> {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    if !there("node") || !there("npm") {
        if std::env::var_os("CI").is_some() {
            bail!("Node and npm build the console, and are not installed");
        }
        eprintln!("xtask: LEFT OUT: Node and npm are not installed, so lateend has no console");
        return Ok(false);
    }
    let (built, sources) = (folder().join("dist/index.html.gz"), SOURCES.map(|name| folder().join(name)));
    if newest(&[built])? > newest(&sources)? {
        return Ok(true);
    }
    packages()?;
    eprintln!("xtask: building the console");
    run(npm().args(["run", "--silent", "build"]))?;
    Ok(true)
}

/// What its own tests hold, and what a browser sees of a mesh that runs: the programs must be built. Each argument goes to
/// Playwright (for instance a file of tests).
pub(crate) fn test(arguments: &[String]) -> anyhow::Result<()> {
    let Some(chromium) = browser()? else {
        if std::env::var_os("CI").is_some() {
            bail!("chromium is not installed");
        }
        return Ok(());
    };
    packages()?;
    run(npm().args(["run", "--silent", "test"]))?;
    let mut test = npm();
    test.args(["run", "--silent", "e2e", "--"]).args(arguments).env("CHROMIUM_BIN", chromium);
    run(test.env("LATEEN_BIN", crate::target().join("debug/lateen")))
}

fn browser() -> anyhow::Result<Option<PathBuf>> {
    match std::env::var_os("CHROMIUM_BIN") {
        Some(given) => Ok(Some(given.into())),
        None => from_archive("chromium", &["chromium"]),
    }
}

/// Installs exactly what the lock file says, unless that is there.
fn packages() -> anyhow::Result<()> {
    let installed = folder().join("node_modules/.package-lock.json");
    if newest(&[installed])? > newest(&[folder().join("package-lock.json")])? {
        return Ok(());
    }
    eprintln!("xtask: installing the console's packages");
    run(npm().args(["ci", "--no-audit", "--no-fund"])).context("the console's packages, by npm")
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    // The browser is the distribution's.
    npm.current_dir(folder()).env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    npm
}

fn folder() -> PathBuf {
    root().join("console")
}

/// When the newest of these files, and of those in these folders, was written; the beginning of time where there is none.
fn newest(paths: &[PathBuf]) -> anyhow::Result<SystemTime> {
    let mut found = SystemTime::UNIX_EPOCH;
    let mut left: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = left.pop() {
        let Ok(about) = path.metadata() else { continue };
        // A folder is written when a file in it is gone.
        found = found.max(about.modified()?);
        if about.is_dir() {
            left.extend(entries(&path)?);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

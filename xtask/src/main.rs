//! The project's chores, as `cargo xtask COMMAND`: run the demo, run the tests, check the tree, measure.

mod bench;
mod compatibility;
mod console;
mod demo;
mod fuzz;
mod install;
mod kubernetes;
mod test;
#[cfg(test)]
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const HELP: &str = "\
cargo xtask COMMAND

  demo [ARG…]   build everything and run the Bookinfo sample in a mesh on this machine;
                each ARG goes to `lateen up` (for instance --detach, or --publish 9090:8080)
  test [ARG…]   install what the tests need, build everything and run all tests;
                each ARG goes to `cargo test` (for instance a test's name)
  console       build the web console, for the next build of lateend; `console test` also tests it in a browser
  churn [S]     change every kind ten times a second for S seconds (60) under 1,000 requests a second,
                of which none may fail
  kubernetes    build the API server that tests/kubernetes runs against, and say where it is
  fuzz [TARGET] feed parsers whatever they might be sent; `cargo xtask fuzz --help` says what else it takes
  bench WHAT    measure; `cargo xtask bench` says what there is
  docs          write the pages of docs/ that are made from tables in the code
  ci            what a change must pass: formatting, lints, dependencies, tests, instructions per request
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = arguments.split_first().map_or(("help", &[][..]), |(first, rest)| (first.as_str(), rest));
    let result = match command {
        "bench" => bench::run(rest),
        "churn" => test::churn(rest),
        "console" => console::main(rest),
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "fuzz" => fuzz::main(rest),
        "kubernetes" if rest.is_empty() => kubernetes::tell(),
        "docs" if rest.is_empty() => docs(),
        "ci" if rest.is_empty() => ci(),
        "help" | "--help" | "-h" => {
            eprint!("{HELP}");
            Ok(())
        }
        other => {
            eprint!("xtask: unknown command: {other} {}\n\n{HELP}", rest.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    check_dependencies()?;
    test::run(&[])?;
    bench::instructions()
}

fn docs() -> anyhow::Result<()> {
    let path = compatibility::path();
    std::fs::write(&path, compatibility::page()).with_context(|| format!("cannot write {}", path.display()))
}

/// With cargo-deny, where it is installed; its advisories would need the network, and change from day to day.
fn check_dependencies() -> anyhow::Result<()> {
    if !cargo().args(["deny", "--version"]).output()?.status.success() {
        eprintln!("xtask: LEFT OUT: cargo-deny is not installed, so nothing checks dependencies against deny.toml");
        return Ok(());
    }
    run(cargo().args(["deny", "--workspace", "check", "bans", "licenses", "sources"]))
}

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this very program, at the root of the checkout.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command with its output shown, and fails if it fails.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

//! `cargo xtask demo`: from a checkout to a running mesh.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

use crate::{cargo, root, target};

/// The programs that a mesh on one machine consists of, and the sample that runs in it.
const PACKAGES: [&str; 5] = ["lateen-cli", "lateen-control", "lateen-proxy", "lateen-intercept", "bookinfo"];

const INPUT: [&str; 3] = ["bookinfo.yaml", "gateway.yaml", "destination-rules.yaml"];

fn up_arguments(extra: &[String]) -> Vec<String> {
    let sample = |file: &str| format!("samples/bookinfo/{file}");
    let mut arguments = vec!["up".to_owned()];
    for file in INPUT {
        arguments.extend(["-f".to_owned(), sample(file)]);
    }
    arguments.extend(["--images".to_owned(), sample("images.yaml")]);
    arguments.extend_from_slice(extra);
    arguments
}

/// Builds, then becomes `lateen up`: Ctrl-C ends the mesh.
pub(crate) fn run(extra: &[String]) -> anyhow::Result<()> {
    // An old Node, or no registry to be reached: the mesh runs without, and lateend says how to build it.
    if let Err(error) = crate::console::build() {
        eprintln!("xtask: LEFT OUT: the console cannot be built: {error:#}");
    }
    let mut build = cargo();
    build.args(["build", "--release"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    crate::run(&mut build)?;
    let lateen = target().join("release/lateen");
    let error = Command::new(&lateen).current_dir(root()).args(up_arguments(extra)).exec();
    Err(error).with_context(|| format!("cannot run {}", lateen.display()))
}

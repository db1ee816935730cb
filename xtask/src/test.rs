//! `cargo xtask test`: everything that must hold, by one command.

use crate::{cargo, install};

pub(crate) fn run(extra: &[String]) -> anyhow::Result<()> {
    let envoy = install::envoy()?;
    // The whole-program tests start these; cargo builds a package's programs only for that package's own tests.
    crate::run(cargo().args(["build", "--workspace", "--bins"]))?;
    crate::run(cargo().args(["test", "--workspace"]).args(extra).env("ENVOY_BIN", envoy))
}

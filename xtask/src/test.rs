//! `cargo xtask test`: everything that must hold, by one command.

use crate::{cargo, install};

pub(crate) fn run(extra: &[String]) -> anyhow::Result<()> {
    let envoy = install::envoy()?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(extra).env("ENVOY_BIN", envoy);
    test.env("GRPC_PYTHON", install::grpc()?);
    if let Some(h2spec) = install::h2spec()? {
        test.env("H2SPEC_BIN", h2spec);
    }
    // The whole-program tests start these; cargo builds a package's programs only for that package's own tests.
    crate::run(cargo().args(["build", "--workspace", "--bins"]))?;
    crate::run(&mut test)
}

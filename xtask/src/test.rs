//! `cargo xtask test`: everything that must hold, by one command.

use crate::{cargo, console, install, kubernetes};

pub(crate) fn run(extra: &[String]) -> anyhow::Result<()> {
    let envoy = install::envoy()?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(extra).env("ENVOY_BIN", envoy);
    test.env("GRPC_PYTHON", install::grpc()?);
    if let Some(h2spec) = install::h2spec()? {
        test.env("H2SPEC_BIN", h2spec);
    }
    if let Some(prometheus) = install::prometheus()? {
        test.env("PROMETHEUS_BIN", prometheus);
    }
    if let Some(api_server) = kubernetes::api_server()? {
        test.env("KUBERNETES_BIN", api_server);
    }
    test.envs(install::strangers()?);
    // Before the programs: lateend has it in it.
    let has_console = console::build()?;
    // The whole-program tests start these; cargo builds a package's programs only for that package's own tests.
    crate::run(cargo().args(["build", "--workspace", "--bins"]))?;
    if has_console && extra.is_empty() {
        console::test(&[])?;
    }
    crate::run(&mut test)
}

/// The mesh test of changes under load, for longer and under more: optimised, so that the load is what it says.
pub(crate) fn churn(arguments: &[String]) -> anyhow::Result<()> {
    let seconds = match arguments {
        [] => "60",
        [seconds] => seconds,
        _ => anyhow::bail!("cargo xtask churn [SECONDS]"),
    };
    crate::run(cargo().args(["build", "--workspace", "--release", "--bins"]))?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--release", "--test", "mesh", "--", "--nocapture", "every_kind_changes"]);
    crate::run(test.env("LATEEN_CHURN", seconds))
}

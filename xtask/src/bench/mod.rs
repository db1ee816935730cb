//! `cargo xtask bench`: measurements that are too long or too restless for a test.

mod control_plane;
mod document;

use anyhow::bail;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    match arguments.split_first() {
        Some((what, rest)) if what == "control-plane" => control_plane::run(rest),
        Some((what, _)) => bail!("there is no benchmark `{what}`, only: control-plane"),
        None => bail!("say which benchmark: control-plane"),
    }
}

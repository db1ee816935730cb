//! `cargo xtask bench`: measurements that are too long or too restless for a test.

mod control_plane;
mod document;
mod proxy;

use anyhow::bail;

const HELP: &str = "\
cargo xtask bench WHAT [OPTION…]

  control-plane  what a change costs under a thousand stub proxies: --services N,N… --proxies N --changes N
  proxy          lateen-proxy beside Envoy, nginx and HAProxy: --help says how to choose
  instructions   count lateen-proxy's instructions per request, and fail if there are more than is recorded;
                 with --record, record them

The first two write their tables into docs/performance.md.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let (what, rest) = arguments.split_first().map_or(("help", &[][..]), |(first, rest)| (first.as_str(), rest));
    match what {
        "control-plane" => control_plane::run(rest),
        "proxy" => proxy::run(rest),
        "instructions" => proxy::instructions::run(rest),
        "help" | "--help" | "-h" => {
            eprint!("{HELP}");
            Ok(())
        }
        other => bail!("there is no benchmark `{other}`\n\n{HELP}"),
    }
}

/// What `cargo xtask ci` asks: that no request costs more instructions than is recorded.
pub(crate) fn instructions() -> anyhow::Result<()> {
    proxy::instructions::run(&[])
}

//! Measures the control plane at scale: a real `lateend`, stub proxies that cost next to nothing, and what changes cost.
//! `cargo xtask bench control-plane` builds and runs it.

mod control_plane;
mod measure;
mod report;
mod stub;
mod wire;
mod world;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use measure::Plan;

const USAGE: &str = "control-plane-bench LATEEND [--services N,N…] [--proxies N] [--changes N]";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (program, options) = arguments.split_first().context(USAGE)?;
    let mut sizes = vec![100, 1000, 5000];
    let mut plan = Plan { program: PathBuf::from(program), services: 0, proxies: 1000, changes: 50 };
    for option in options.chunks(2) {
        let [name, value] = option else { anyhow::bail!("{USAGE}") };
        let number = || value.parse().with_context(|| format!("`{value}` is no number"));
        match name.as_str() {
            "--services" => {
                let parsed: Result<_, _> = value.split(',').map(str::parse).collect();
                sizes = parsed.with_context(|| format!("`{value}` is no list of numbers"))?;
            }
            "--proxies" => plan.proxies = number()?,
            "--changes" => plan.changes = number()?,
            _ => anyhow::bail!("{name} is not known: {USAGE}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for services in sizes {
        figures.push(runtime.block_on(measure::run(&Plan { services, ..plan.clone() }))?);
    }
    Ok(std::io::stdout().write_all(report::table(&figures).as_bytes())?)
}

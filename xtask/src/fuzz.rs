//! `cargo xtask fuzz`: builds the targets of `fuzz/` with the counters that libFuzzer reads, and runs them. Needs no nightly
//! compiler and no cargo-fuzz, only a C++ compiler for libFuzzer itself.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::{cargo, root, run};

const HELP: &str = "cargo xtask fuzz [TARGET]... [--seconds N] [--keep]

  TARGET       only these, by the names in fuzz/fuzz_targets; all of them otherwise
  --seconds N  how long each runs (60)
  --keep       put what was found to reach something new into fuzz/corpus, where every test run replays it";

/// What makes the compiler count edges, and tell what is compared.
const COUNTERS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=16",
];

struct Wanted {
    targets: Vec<String>,
    seconds: u64,
    keep: bool,
}

pub(crate) fn main(arguments: &[String]) -> anyhow::Result<()> {
    let wanted = read(arguments)?;
    let host = host()?;
    build(&host)?;
    for target in &wanted.targets {
        fuzz(target, &host, &wanted)?;
    }
    Ok(())
}

fn read(arguments: &[String]) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted { targets: Vec::new(), seconds: 60, keep: false };
    let known = targets()?;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let seconds = arguments.next().context("--seconds needs a number")?;
                wanted.seconds = seconds.parse().with_context(|| format!("--seconds: {seconds} is no number"))?;
            }
            "--keep" => wanted.keep = true,
            target if known.iter().any(|name| name == target) => wanted.targets.push(target.to_owned()),
            other => bail!("{other} is no target\n\n{HELP}\n\ntargets: {}", known.join(" ")),
        }
    }
    if wanted.targets.is_empty() {
        wanted.targets = known;
    }
    Ok(wanted)
}

fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Named, so that the counters are not in what runs while building.
fn host() -> anyhow::Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").current_dir(root()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say which host it is for")
}

fn build(host: &str) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", host]);
    command.args(["--target-dir", "fuzz/target"]);
    command.env("CARGO_ENCODED_RUSTFLAGS", COUNTERS.join("\u{1f}"));
    run(&mut command)
}

fn fuzz(target: &str, host: &str, wanted: &Wanted) -> anyhow::Result<()> {
    let folder = root().join("fuzz");
    let program = folder.join("target").join(host).join("release").join(target);
    let (kept, found) = (folder.join("corpus").join(target), folder.join("target/found").join(target));
    let artifacts = folder.join("artifacts").join(target);
    for folder in [&kept, &found, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let start = |first: &PathBuf, second: &PathBuf, options: &[String]| {
        let mut command = std::process::Command::new(&program);
        command.args([first, second]).args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]).args(options);
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        run(&mut command)
    };
    eprintln!("xtask: fuzzing {target}");
    // What is new goes into the first folder.
    start(&found, &kept, &[format!("-max_total_time={}", wanted.seconds)])?;
    if wanted.keep {
        start(&kept, &found, &["-set_cover_merge=1".to_owned()])?;
    }
    Ok(())
}

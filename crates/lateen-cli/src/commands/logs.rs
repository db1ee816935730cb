//! `lateen logs`: what a container has written.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{PodChoice, StateOption, pods};
use crate::runtime::pod::log_file;

/// How often a followed file is looked at.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodChoice,
    /// Go on showing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Show only so many of the last lines.
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let choice = &arguments.pod;
    let pod = pods::find(&state, &choice.namespace, &choice.pod)?;
    let container = pods::container(&pod, choice.container.as_deref())?;
    let path = state.log_file(pod.namespace(), pod.name(), &container);
    match show(&path, arguments, || state.running().is_some()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS).with_context(|| format!("read {}", path.display())),
    }
}

fn show(path: &Path, arguments: &Arguments, goes_on: impl Fn() -> bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // A container that has written nothing has no file yet.
    let mut file = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let (Some(file), Some(count)) = (&mut file, arguments.tail) {
        let end = file.seek(SeekFrom::End(0))?;
        out.write_all(log_file::tail(path, count)?.as_bytes())?;
        file.seek(SeekFrom::Start(end))?;
    }
    loop {
        if let Some(file) = &mut file {
            copy(file, &mut out)?;
        }
        out.flush()?;
        if !arguments.follow || !goes_on() {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
        // A large file is put aside and another one begun.
        if let Ok(now) = std::fs::metadata(path)
            && file.as_ref().and_then(|file| file.metadata().ok()).is_none_or(|known| known.ino() != now.ino())
        {
            if let Some(old) = &mut file {
                copy(old, &mut out)?;
            }
            file = Some(File::open(path)?);
        }
    }
}

fn copy(file: &mut File, out: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            length => out.write_all(&buffer[..length])?,
        }
    }
}

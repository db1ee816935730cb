//! `lateen logs`: what containers have written.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use lateen_api::selector::LabelSelector;

use super::pods::{self, ThePod};
use super::{Misuse, StateOption};
use crate::runtime::pod::log_file::{self, STAMP};
use crate::runtime::state_dir::StateDir;

/// How often a followed file is looked at.
const PERIOD: Duration = Duration::from_millis(100);
/// Of pods that are chosen by labels, so many last lines of each are shown unless more are asked for (as kubectl).
const LINES_OF_SEVERAL: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the pod, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment.
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    pod: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Pods with these labels: `app=reviews,version!=v1`.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<LabelSelector>,
    /// Container [default: the pod's first one that is not a proxy].
    #[arg(short, long)]
    container: Option<String>,
    /// All of the pod's containers.
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Go on showing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Show only so many of the last lines; -1 for all.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Show only lines that are younger than this: `30s`, `5m`, `1h30m`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<SignedDuration>,
    /// The container's run before the last restart.
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Start each line with its time.
    #[arg(long)]
    timestamps: bool,
    /// Start each line with its pod and container.
    #[arg(long)]
    prefix: bool,
    #[command(flatten)]
    state: StateOption,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration.is_positive() => Ok(duration),
        _ => Err("a duration is expected, such as 30s, 5m or 1h30m".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let mut sources = Vec::new();
    for pod in chosen_pods(&state, arguments)? {
        for container in chosen_containers(&pod, arguments)? {
            sources.push(Source::new(&state, &pod, &container, arguments)?);
        }
    }
    match show(&mut sources, arguments, || state.running().is_some()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS).context("read the log"),
    }
}

fn chosen_pods(state: &StateDir, arguments: &Arguments) -> anyhow::Result<Vec<ThePod>> {
    let namespace = &arguments.namespace;
    match (&arguments.pod, &arguments.selector) {
        (Some(name), _) => Ok(vec![pods::find(state, namespace, name)?]),
        (None, Some(selector)) => match pods::selected(state, namespace, selector)? {
            pods if pods.is_empty() => bail!("no pod in namespace {namespace} has these labels"),
            pods => Ok(pods),
        },
        (None, None) => Err(Misuse::of("say which pod")),
    }
}

fn chosen_containers(pod: &ThePod, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    if arguments.all_containers {
        let spec = &pod.spec.spec;
        return Ok(spec.init_containers.iter().chain(&spec.containers).map(|it| it.name.clone()).collect());
    }
    Ok(vec![pods::container(pod, arguments.container.as_deref())?])
}

fn show(sources: &mut [Source], arguments: &Arguments, goes_on: impl Fn() -> bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for source in &mut *sources {
        source.begin(&mut out)?;
    }
    out.flush()?;
    while arguments.follow && goes_on() {
        std::thread::sleep(PERIOD);
        for source in &mut *sources {
            source.go_on(&mut out)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// The log of one container.
struct Source {
    path: PathBuf,
    /// None as long as the container has written nothing.
    file: Option<File>,
    tail: Option<usize>,
    lines: Lines,
}

impl Source {
    fn new(state: &StateDir, pod: &ThePod, container: &str, arguments: &Arguments) -> anyhow::Result<Self> {
        let mut path = state.log_file(pod.namespace(), pod.name(), container);
        if arguments.previous {
            path = log_file::previous(&path);
            if !path.exists() {
                bail!("container {container} of pod {} has no earlier run", pod.name());
            }
        }
        let tail = match arguments.tail {
            Some(count) => usize::try_from(count).ok(),
            None => arguments.selector.is_some().then_some(LINES_OF_SEVERAL),
        };
        let since = arguments.since.map(|age| Timestamp::now() - age);
        let prefix = if arguments.prefix { format!("[pod/{}/{container}] ", pod.name()) } else { String::new() };
        let lines = Lines { since, prefix, timestamps: arguments.timestamps, place: Place::default() };
        Ok(Self { path, file: None, tail, lines })
    }

    fn begin(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.file = match File::open(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(file) = &mut self.file else { return Ok(()) };
        let shown = match self.tail {
            Some(count) => log_file::last(file, count)?,
            None => 0..file.metadata()?.len(),
        };
        file.seek(SeekFrom::Start(shown.start))?;
        self.copy(shown.end - shown.start, out)
    }

    /// Shows what has come since. A large file is put aside, as is that of a run that has ended, and another one begun.
    fn go_on(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.copy(u64::MAX, out)?;
        let Ok(now) = std::fs::metadata(&self.path) else { return Ok(()) };
        let known = self.file.as_ref().and_then(|file| file.metadata().ok());
        if known.is_none_or(|known| known.ino() != now.ino()) {
            // What came between the last look and the change.
            self.copy(u64::MAX, out)?;
            self.file = File::open(&self.path).ok();
            self.copy(u64::MAX, out)?;
        }
        Ok(())
    }

    /// Shows what is there, up to so many bytes.
    fn copy(&mut self, most: u64, out: &mut impl Write) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut file = file.take(most);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                length => self.lines.write(&buffer[..length], out)?,
            }
        }
    }
}

/// How lines of a log are shown; they may come in pieces.
struct Lines {
    since: Option<Timestamp>,
    prefix: String,
    timestamps: bool,
    place: Place,
}

/// Where in a line the next byte belongs.
enum Place {
    /// In the time at its beginning, of which this is there.
    Stamp(Vec<u8>),
    /// Behind it, in a line that is shown or not.
    Text(bool),
}

impl Default for Place {
    fn default() -> Self {
        Self::Stamp(Vec::with_capacity(STAMP))
    }
}

impl Lines {
    fn write(&mut self, mut bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Stamp(stamp) => {
                    let (more, rest) = bytes.split_at(bytes.len().min(STAMP - stamp.len()));
                    stamp.extend_from_slice(more);
                    bytes = rest;
                    if stamp.len() == STAMP {
                        let stamp = std::mem::take(stamp);
                        self.start_line(&stamp, out)?;
                    }
                }
                Place::Text(shown) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
                    let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if *shown {
                        out.write_all(text)?;
                    }
                    bytes = rest;
                    if end.is_some() {
                        self.place = Place::default();
                    }
                }
            }
        }
        Ok(())
    }

    fn start_line(&mut self, stamp: &[u8], out: &mut impl Write) -> io::Result<()> {
        let time = str::from_utf8(stamp).ok().and_then(|text| text.trim_end().parse::<Timestamp>().ok());
        // A line without a time is shown rather than lost.
        let shown = self.since.is_none_or(|since| time.is_none_or(|time| time >= since));
        if shown {
            out.write_all(self.prefix.as_bytes())?;
            if self.timestamps || time.is_none() {
                out.write_all(stamp)?;
            }
        }
        self.place = Place::Text(shown);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str =
        "2026-11-27T12:00:00.000000Z one\n2026-11-27T12:00:05.500000Z two\n2026-11-27T12:00:09.000000Z \n";

    fn shown(since: Option<&str>, prefix: &str, timestamps: bool, piece: usize) -> String {
        let since = since.map(|time| time.parse().unwrap());
        let mut lines = Lines { since, prefix: prefix.to_owned(), timestamps, place: Place::default() };
        let mut out = Vec::new();
        for bytes in LOG.as_bytes().chunks(piece) {
            lines.write(bytes, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_left_out_shown_or_compared_however_a_log_is_cut() {
        for piece in [1, 2, 27, 28, 29, 1000] {
            assert_eq!(shown(None, "", false, piece), "one\ntwo\n\n");
            assert_eq!(shown(None, "", true, piece), LOG);
            assert_eq!(shown(Some("2026-11-27T12:00:05Z"), "[p] ", false, piece), "[p] two\n[p] \n");
        }
    }

    #[test]
    fn durations_are_those_of_kubectl() {
        assert_eq!(duration("1h30m").unwrap(), SignedDuration::from_secs(5400));
        assert_eq!(duration("10s").unwrap(), SignedDuration::from_secs(10));
        for wrong in ["", "10", "-5s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

//! `lateen apply` and what it shares with `lateen delete`: files in, results out, and waiting until every proxy has it.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, Environment, Object, parse_documents, validate_in};

use super::resources::full_name;
use super::{StateOption, WRONG};
use crate::api::ControlPlane;
use crate::api::objects::{Changed, Named, Refused};
use crate::runtime::excerpt::{told, told_of};
use crate::runtime::paint::{ERROR, FAINT, PLAIN};

/// Files in a folder that are read, as the control plane reads them.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];
/// Istio's code for a reference that leads nowhere: the object waits for what it names. Others are in force all the same.
const NOT_IN_FORCE: &str = "IST0101";
/// What standard input is called in findings.
const STANDARD_INPUT: &str = "standard input";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    waiting: Waiting,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    state: StateOption,
}

/// Where objects are read from.
#[derive(Debug, Clone, Args)]
pub(super) struct Input {
    /// File or folder of YAML; - for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Read folders in folders, too.
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
}

#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// Return when every proxy concerned runs the change, and say so.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let control_plane = running(&arguments.state)?;
    let texts = arguments.input.read()?;
    if complain(&arguments.input.check(&texts), &texts) {
        return Ok(ExitCode::from(WRONG));
    }
    let start = Instant::now();
    super::block_on(async {
        match control_plane.apply(&texts, &arguments.input.namespace, arguments.dry_run).await? {
            Err(Refused(found)) => {
                complain(&found, &texts);
                Ok(ExitCode::from(WRONG))
            }
            Ok(changed) => {
                tell(&changed, if arguments.dry_run { " (dry run)" } else { "" });
                if arguments.dry_run {
                    Ok(ExitCode::SUCCESS)
                } else {
                    arguments.waiting.until_live(&control_plane, &changed, start).await
                }
            }
        }
    })
}

/// The mesh that runs in this state directory.
pub(super) fn running(state: &StateOption) -> anyhow::Result<ControlPlane> {
    let state = state.open()?;
    if state.running().is_none() {
        bail!("no mesh is running in {state}: start one with `lateen up -f FILE`");
    }
    Ok(ControlPlane::at(&state.lateend_socket()))
}

impl Input {
    /// Each file with its text.
    pub(super) fn read(&self) -> anyhow::Result<Vec<Named>> {
        let mut texts = Vec::new();
        for path in &self.files {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("read standard input")?;
                texts.push(Named { file: STANDARD_INPUT.to_owned(), text });
            } else if path.is_dir() {
                let before = texts.len();
                self.read_folder(path, &mut texts)?;
                if texts.len() == before {
                    let deeper = if self.recursive { "" } else { " (-R looks into folders in it, too)" };
                    bail!("{} holds no file that ends in .yaml, .yml or .json{deeper}", path.display());
                }
            } else {
                texts.push(text_of(path)?);
            }
        }
        Ok(texts)
    }

    fn read_folder(&self, folder: &Path, texts: &mut Vec<Named>) -> anyhow::Result<()> {
        let mut inside: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .with_context(|| format!("list {}", folder.display()))?;
        inside.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
        inside.sort();
        for path in inside {
            // A link to a folder could lead round in a circle.
            if path.is_dir() && self.recursive && !path.is_symlink() {
                self.read_folder(&path, texts)?;
            } else if path.is_file() && path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|it| suffix == *it)) {
                texts.push(text_of(&path)?);
            }
        }
        Ok(())
    }

    /// What is wrong with them, before anything is sent.
    fn check(&self, texts: &[Named]) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for Named { file, text } in texts {
            let parsed = parse_documents(file, text, &self.namespace);
            found.extend(parsed.diagnostics);
            found.extend(parsed.objects.iter().flat_map(|object| validate_in(object, Environment::Local)));
        }
        found
    }

    /// The objects in the texts, and what is wrong with those that cannot be read.
    pub(super) fn objects(&self, texts: &[Named]) -> (Vec<Object>, Vec<Diagnostic>) {
        let (mut objects, mut found) = (Vec::new(), Vec::new());
        for Named { file, text } in texts {
            let parsed = parse_documents(file, text, &self.namespace);
            objects.extend(parsed.objects);
            found.extend(parsed.diagnostics);
        }
        (objects, found)
    }
}

/// Named by its whole path: what is in force says where it was written, to whoever asks and wherever they are.
fn text_of(path: &Path) -> anyhow::Result<Named> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(Named { file: std::path::absolute(path)?.display().to_string(), text })
}

/// Prints findings with the lines that they are about; true if one of them is an error.
pub(super) fn complain(found: &[Diagnostic], texts: &[Named]) -> bool {
    let texts: HashMap<&str, &str> = texts.iter().map(|named| (named.file.as_str(), named.text.as_str())).collect();
    for finding in found {
        anstream::eprintln!("{}", told_of(finding, texts.get(finding.file.as_str()).copied()));
    }
    found.iter().any(Diagnostic::is_error)
}

/// As kubectl tells it: `virtualservice.networking.istio.io/reviews configured`.
pub(super) fn tell(changed: &Changed, suffix: &str) {
    for outcome in &changed.results {
        let namespace = match outcome.namespace.as_str() {
            "" | "default" => String::new(),
            namespace => format!(" -n {namespace}"),
        };
        let name = full_name(outcome.kind, &outcome.name);
        anstream::println!("{name}{FAINT}{namespace}{PLAIN} {}{suffix}", outcome.action);
    }
}

impl Waiting {
    /// Without `--wait`: done. With it: done when every proxy is, and a word on each that is not; then what the whole
    /// configuration has to say of these objects. `start` is when the change was sent.
    pub(super) async fn until_live(
        &self,
        control_plane: &ControlPlane,
        changed: &Changed,
        start: Instant,
    ) -> anyhow::Result<ExitCode> {
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let waited = control_plane.wait(changed.revision, Duration::from_secs(self.timeout)).await?;
        anstream::println!("{}/{} proxies live in {}", waited.live, waited.total, for_people(start.elapsed()));
        for pending in &waited.pending {
            anstream::eprintln!("  {ERROR}{}{PLAIN}: {}", pending.proxy, pending.reason);
        }
        let mut is_held = false;
        for finding in control_plane.diagnostics().await? {
            let is_about = |object: &Subject| changed.results.iter().any(|outcome| outcome.is(object));
            if finding.code.starts_with("IST") && finding.object.as_ref().is_some_and(is_about) {
                is_held |= finding.code == NOT_IN_FORCE && finding.is_error();
                anstream::eprintln!("{}", told(&finding));
            }
        }
        Ok(if waited.pending.is_empty() && !is_held { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
    }
}

/// `34 ms`, `1.2 s`.
fn for_people(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis().max(1))
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_not_zero() {
        for (micros, text) in [(400, "1 ms"), (34_000, "34 ms"), (999_900, "999 ms"), (1_240_000, "1.2 s")] {
            assert_eq!(for_people(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn folders_are_read_in_order_and_deeper_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        ["b.yaml", "a.yml", "deep/c.json", ".hidden.yaml", "note.txt", "d.yaml~"].into_iter().for_each(write);
        let names = |recursive| {
            let input = Input { files: vec![folder.path().to_owned()], recursive, namespace: String::new() };
            let texts = input.read().unwrap();
            texts.iter().map(|it| it.file.rsplit_once('/').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.yml", "b.yaml"]);
        assert_eq!(names(true), ["a.yml", "b.yaml", "c.json"]);
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let none = Input { files: vec![folder.path().join("empty")], recursive: false, namespace: String::new() };
        assert!(none.read().unwrap_err().to_string().ends_with("(-R looks into folders in it, too)"));
    }
}

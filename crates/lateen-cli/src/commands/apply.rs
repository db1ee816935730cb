//! `lateen apply` and what it shares with `lateen delete`: files in, results out, and waiting until every proxy has it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use lateen_api::diagnostic::Subject;
use lateen_api::{Diagnostic, Environment, Object, parse_documents, validate_in};

use super::{StateOption, WRONG};
use crate::api::ControlPlane;
use crate::api::objects::{Changed, Outcome, Refused};
use crate::runtime::paint::{ERROR, FAINT, PLAIN};

/// Istio's code.
const REFERENCED_RESOURCE_NOT_FOUND: &str = "IST0101";

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
#[derive(Debug, Args)]
pub(super) struct Input {
    /// File or folder of YAML; - for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(super) files: Vec<PathBuf>,
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
    if complain(&arguments.input.check(&texts)) {
        return Ok(ExitCode::from(WRONG));
    }
    let whole: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    // Of several files that are sent as one text, lines would be another's.
    let file = if let [(name, _)] = &texts[..] { name } else { "applied" };
    super::block_on(async {
        let (text, namespace) = (whole.join("\n---\n"), &arguments.input.namespace);
        match control_plane.apply(&text, file, namespace, arguments.dry_run).await? {
            Err(Refused(found)) => {
                complain(&found);
                Ok(ExitCode::from(WRONG))
            }
            Ok(changed) => {
                tell(&changed, if arguments.dry_run { " (dry run)" } else { "" });
                if arguments.dry_run {
                    Ok(ExitCode::SUCCESS)
                } else {
                    let ended = arguments.waiting.until_live(&control_plane, changed.revision).await?;
                    let held = arguments.waiting.wait && complain(&not_in_force(&control_plane, &changed).await?);
                    Ok(if held { ExitCode::from(WRONG) } else { ended })
                }
            }
        }
    })
}

/// Why the mesh does not take over objects that it has now: they refer to something that does not exist.
async fn not_in_force(control_plane: &ControlPlane, changed: &Changed) -> anyhow::Result<Vec<Diagnostic>> {
    let is_changed = |object: &Subject| {
        let same = |it: &Outcome| it.kind == object.kind && it.namespace == object.namespace && it.name == object.name;
        changed.results.iter().any(same)
    };
    let mut found = control_plane.diagnostics().await?;
    found.retain(|it| it.code == REFERENCED_RESOURCE_NOT_FOUND && it.object.as_ref().is_some_and(is_changed));
    Ok(found)
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
    /// Name and text of each file.
    pub(super) fn read(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        for path in &self.files {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("read standard input")?;
                texts.push(("standard input".to_owned(), text));
            } else if path.is_dir() {
                let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
                    .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
                    .with_context(|| format!("list {}", path.display()))?;
                inside.retain(|path| {
                    path.extension().is_some_and(|suffix| suffix == "yaml" || suffix == "yml" || suffix == "json")
                });
                inside.sort();
                for path in inside {
                    texts.push(text_of(&path)?);
                }
            } else {
                texts.push(text_of(path)?);
            }
        }
        Ok(texts)
    }

    /// What is wrong with them, before anything is sent: here the files' own names and lines are known.
    fn check(&self, texts: &[(String, String)]) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (name, text) in texts {
            let parsed = parse_documents(name, text, &self.namespace);
            found.extend(parsed.diagnostics);
            found.extend(parsed.objects.iter().flat_map(|object| validate_in(object, Environment::Local)));
        }
        found
    }

    pub(super) fn objects(&self) -> anyhow::Result<(Vec<Object>, Vec<Diagnostic>)> {
        let (mut objects, mut found) = (Vec::new(), Vec::new());
        for (name, text) in self.read()? {
            let parsed = parse_documents(&name, &text, &self.namespace);
            objects.extend(parsed.objects);
            found.extend(parsed.diagnostics);
        }
        Ok((objects, found))
    }
}

fn text_of(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Prints findings; true if one of them is an error.
pub(super) fn complain(found: &[Diagnostic]) -> bool {
    for finding in found {
        let style = if finding.is_error() { ERROR } else { FAINT };
        anstream::eprintln!("{style}{finding}{PLAIN}");
    }
    found.iter().any(Diagnostic::is_error)
}

/// As kubectl tells it: `virtualservice.networking.istio.io/reviews configured`.
pub(super) fn tell(changed: &Changed, suffix: &str) {
    for outcome in &changed.results {
        let kind = outcome.kind.parse::<lateen_api::Kind>();
        let group =
            kind.map(|kind| kind.group()).ok().filter(|group| !group.is_empty()).map(|group| format!(".{group}"));
        let namespace = if outcome.namespace.is_empty() || outcome.namespace == "default" {
            String::new()
        } else {
            format!(" -n {}", outcome.namespace)
        };
        let name = format!("{}{}/{}", outcome.kind.to_lowercase(), group.unwrap_or_default(), outcome.name);
        anstream::println!("{name}{FAINT}{namespace}{PLAIN} {}{suffix}", outcome.action);
    }
}

impl Waiting {
    /// Without `--wait`: done. With it: done when every proxy is, and a word on each that is not.
    pub(super) async fn until_live(&self, control_plane: &ControlPlane, revision: u64) -> anyhow::Result<ExitCode> {
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let waited = control_plane.wait(revision, Duration::from_secs(self.timeout)).await?;
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        let seconds = waited.elapsed_ms as f64 / 1000.0;
        anstream::println!("{}/{} proxies live in {seconds:.1} s", waited.live, waited.total);
        if waited.pending.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        for pending in &waited.pending {
            anstream::eprintln!("  {ERROR}{}{PLAIN}: {}", pending.proxy, pending.reason);
        }
        Ok(ExitCode::from(WRONG))
    }
}

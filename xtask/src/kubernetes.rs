//! The API server of the tests: a program of Go around Kubernetes' and etcd's own modules (`tests/kubernetes/apiserver`).
//!
//! Building it takes many minutes the first time, so it is kept outside the tree, by what it is made of: another checkout, and
//! another day, finds it there.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{root, run};

/// Of Kubernetes in `go.mod`. The API server tells its clients.
const VERSION: &str = "1.36.4";

/// Builds it, and says where it is.
pub(crate) fn tell() -> anyhow::Result<()> {
    let program = api_server()?.context("Go is not installed")?;
    eprintln!("xtask: KUBERNETES_BIN={}", program.display());
    Ok(())
}

/// Its path: `KUBERNETES_BIN` if set, else the one in the user's cache, built when missing; none without Go.
pub(crate) fn api_server() -> anyhow::Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("KUBERNETES_BIN") {
        return Ok(Some(given.into()));
    }
    let source = root().join("tests/kubernetes/apiserver");
    let folder = cache()?.join(format!("lateen/apiserver-{:016x}", digest(&source)?));
    let program = folder.join("apiserver");
    if program.exists() {
        return Ok(Some(program));
    }
    if Command::new("go").arg("version").output().is_err() {
        if std::env::var_os("CI").is_some() {
            bail!("the API server of the tests is built with Go, which is not installed");
        }
        eprintln!("xtask: LEFT OUT: Go is not installed, so nothing is tested against a Kubernetes API server");
        return Ok(None);
    }
    eprintln!("xtask: building Kubernetes' API server into {} (many minutes, once)", folder.display());
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // Two at once, or one that is cut off, leave no half of a program.
    let draft = folder.join(format!("draft-{}", std::process::id()));
    let (major, minor) = VERSION.split_once('.').context("a version has parts")?;
    let minor = minor.split('.').next().unwrap_or_default();
    let version = "k8s.io/component-base/version";
    let flags =
        format!("-s -w -X {version}.gitVersion=v{VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}");
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags", &flags, "-o"]).arg(&draft).arg(".");
    run(go.current_dir(&source).env("CGO_ENABLED", "0"))?;
    std::fs::rename(&draft, &program)?;
    Ok(Some(program))
}

/// The user's folder for what can be made again.
fn cache() -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    given.or_else(home).context("neither XDG_CACHE_HOME nor HOME says where a cache may be")
}

/// Of all that it is made of.
fn digest(folder: &Path) -> anyhow::Result<u64> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut digest = Fnv(0xcbf2_9ce4_8422_2325);
    digest.write(VERSION.as_bytes());
    for file in files {
        digest.write(file.file_name().unwrap_or_default().as_encoded_bytes());
        digest.write(&std::fs::read(&file).with_context(|| format!("read {}", file.display()))?);
    }
    Ok(digest.finish())
}

/// FNV-1a: the same in every version of the standard library.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

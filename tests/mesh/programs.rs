//! Which programs a mesh is made of: ours, or ours with a real Envoy in the place of our proxy.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// `lateen`, and what lies beside it.
pub(crate) struct Programs {
    lateen: PathBuf,
    /// What its proxies call themselves.
    agent: &'static str,
    /// Where it was put together, if it was.
    _folder: Option<TempDir>,
}

/// What a mesh needs beside `lateen-proxy`.
const NEEDED: &[&str] = &["lateen", "lateend", "lateen-intercept", "bookinfo", "sample-app", "mesh-probe"];

impl Programs {
    pub(crate) fn ours() -> Self {
        Self { lateen: lateen_tests::program("lateen"), agent: "lateen-proxy", _folder: None }
    }

    /// An Envoy beside every pod and as the gateway, which speaks this form of the discovery protocol.
    pub(crate) fn with_envoy(envoy: &Path, api_type: &str) -> Self {
        let lateen = lateen_tests::program("lateen");
        // Beside the programs, since a name for a file cannot lead to another file system.
        let folder = lateen.parent().map(tempfile::tempdir_in).expect("a program lies in a folder");
        let folder = folder.expect("the folder of the programs can be written");
        let link = |from: &Path, name: &str| {
            std::fs::hard_link(from, folder.path().join(name)).expect("a file can have another name");
        };
        NEEDED.iter().for_each(|name| link(&lateen_tests::program(name), name));
        link(Path::new(env!("CARGO_BIN_EXE_envoy-agent")), "lateen-proxy");
        std::os::unix::fs::symlink(envoy, folder.path().join("envoy")).expect("the folder can be written");
        std::fs::write(folder.path().join("api-type"), api_type).expect("the folder can be written");
        Self { lateen: folder.path().join("lateen"), agent: "envoy", _folder: Some(folder) }
    }

    pub(crate) fn agent(&self) -> &'static str {
        self.agent
    }

    pub(crate) fn lateen(&self) -> &Path {
        &self.lateen
    }
}

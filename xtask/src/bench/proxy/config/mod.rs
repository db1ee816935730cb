//! The same work, in each peer's language.

mod envoy;
mod haproxy;
mod nginx;

pub(crate) use envoy::{envoy, envoy_of_services};
pub(crate) use haproxy::haproxy;
pub(crate) use nginx::nginx;

use std::path::{Path, PathBuf};

/// Where the files of one run lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    pub(crate) folder: &'a Path,
    /// The name of this proxy's own files, without an extension.
    pub(crate) name: &'a str,
}

impl Files<'_> {
    /// A file of this proxy.
    pub(crate) fn own(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    /// A file that all share: `ca.pem`, `client.key`, …
    pub(crate) fn shared(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

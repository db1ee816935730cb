//! Commands that work on files, without a mesh.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the command in a folder, which has no mesh either.
pub(crate) fn lateen(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(words).current_dir(folder).env("NO_COLOR", "1").env("LATEEN_STATE_DIR", folder.join("state"));
    command.output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

//! The programs that `cargo xtask test` installs, and running them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program by the variable that says where it is. Without it what needs it says so and is left out, except under CI.
pub(crate) fn tool(variable: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    if given.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set: `cargo xtask test` sets it");
        eprintln!("LEFT OUT: `cargo xtask test` installs what this needs, or set {variable}");
    }
    given
}

/// A script of this folder.
pub(crate) fn script(name: &str) -> PathBuf {
    lateen_tests::root().join("tests/interop").join(name)
}

/// What a program writes, on its standard output and then on its standard error, and its exit code.
pub(crate) fn run(program: &Path, arguments: &[String]) -> (String, i32) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("the program can be run");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (text, output.status.code().unwrap_or(-1))
}

/// Arguments, one a word.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

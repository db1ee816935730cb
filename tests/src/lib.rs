//! What the whole-program tests share: where the built programs and other projects' samples lie.

pub mod fuzz;

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the checkout")
}

/// A program of the workspace, beside the test's own binary; `cargo xtask test` builds them first.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let folder = test.parent().and_then(Path::parent).expect("cargo puts tests into <profile>/deps");
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo xtask test`, or `cargo build --bins` first",
        program.display()
    );
    program
}

/// A Prometheus to scrape with; as with Envoy, tests are left out without one, except under CI.
///
/// # Panics
/// Under CI, when `PROMETHEUS_BIN` is not set.
pub fn prometheus() -> Option<PathBuf> {
    let given = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
    if given.is_none() {
        assert!(std::env::var_os("CI").is_none(), "PROMETHEUS_BIN is not set: `cargo xtask test` sets it");
        eprintln!(
            "LEFT OUT: no Prometheus to scrape with; `cargo xtask test` gets one on Debian, or set PROMETHEUS_BIN"
        );
    }
    given
}

/// The Envoy to compare with. Without one, tests that need it say so and are left out, except under CI, where that fails.
///
/// # Panics
/// Under CI, when `ENVOY_BIN` is not set.
pub fn envoy() -> Option<PathBuf> {
    let given = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    if given.is_none() {
        assert!(std::env::var_os("CI").is_none(), "ENVOY_BIN is not set: `cargo xtask test` sets it");
        eprintln!("LEFT OUT: no Envoy to compare with; `cargo xtask test` installs one, or set ENVOY_BIN");
    }
    given
}

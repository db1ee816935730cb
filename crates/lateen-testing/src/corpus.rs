//! The inputs that fuzzers found worth keeping, and those that once were too much.

use std::path::{Path, PathBuf};

/// Where the inputs of a target lie, in the checkout.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Runs a target with every input of its own.
///
/// # Panics
/// When the target does, with the input's name before; or when it has no inputs.
pub fn replay(target: &str, run: fn(&[u8])) {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        let data = std::fs::read(&input).expect("the input can be read");
        // Shown only if the test fails.
        eprintln!("{}", input.display());
        run(&data);
    }
}

//! Real input by others, read where it lies: what Istio's users apply must be read whole.

use std::fs;
use std::path::{Path, PathBuf};

use lateen_api::{Diagnostic, Parsed, parse_documents};

/// The folder of samples beside the checkout; without it the test is left out loudly, and fails in CI.
fn samples() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("left out: Istio's samples, {} is missing", folder.display());
    None
}

fn yaml_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it is readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            yaml_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            out.push(path);
        }
    }
}

fn read(path: &Path) -> Parsed {
    let text = fs::read_to_string(path).expect("it is text");
    parse_documents(&path.display().to_string(), &text, "default")
}

fn files(folders: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    if let Some(root) = samples() {
        folders.iter().for_each(|folder| yaml_files(&root.join(folder), &mut out));
        assert!(!out.is_empty());
    }
    out
}

#[test]
fn dump() {
    let mut all = Vec::new();
    for path in files(&[
        "bookinfo",
        "helloworld",
        "httpbin",
        "tcp-echo",
        "sleep",
        "curl",
        "websockets",
        "api-valid",
        "analyze",
        "inject",
        "extauthz",
        "grpc-echo",
        "health-check",
        "ratelimit",
    ]) {
        let parsed = read(&path);
        all.extend(parsed.diagnostics);
    }
    for d in &all {
        println!("{d}");
    }
    let _: &[Diagnostic] = &all;
}

//! Rules about the tree that no compiler checks; a test, so that they hold wherever the tests run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::root;

/// Which of our crates each may use (ARCHITECTURE.md, "Parts").
const MAY_USE: &[(&str, &[&str])] = &[
    ("lateen-cel", &[]),
    ("lateen-api", &["lateen-cel"]),
    ("lateen-mesh", &["lateen-api"]),
    ("lateen-analyze", &["lateen-api", "lateen-mesh"]),
    ("lateen-translate", &["lateen-api", "lateen-mesh"]),
    ("lateen-explain", &["lateen-api", "lateen-mesh", "lateen-translate", "lateen-engine"]),
    ("lateen-xds", &[]),
    ("lateen-live", &[]),
    ("lateen-identity", &[]),
    ("lateen-engine", &["lateen-cel"]),
    ("lateen-intercept", &[]),
    ("lateen-proxy", &["lateen-cel", "lateen-engine", "lateen-xds", "lateen-live", "lateen-identity"]),
    (
        "lateen-control",
        &[
            "lateen-api",
            "lateen-mesh",
            "lateen-explain",
            "lateen-translate",
            "lateen-xds",
            "lateen-live",
            "lateen-identity",
            "lateen-engine",
        ],
    ),
    (
        "lateen-cli",
        &[
            "lateen-api",
            "lateen-mesh",
            "lateen-analyze",
            "lateen-explain",
            "lateen-translate",
            "lateen-xds",
            "lateen-identity",
            "lateen-engine",
            "lateen-control",
            "lateen-intercept",
        ],
    ),
    ("lateen-testing", &[]),
];

/// Names that say nothing of what is inside.
const BANNED_MODULES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager", "base", "types"];

/// A file longer than this is to be split by meaning; the list holds the exceptions, each with its reason.
const MAX_LINES: usize = 800;
const LONG_FILES: &[(&str, &str)] = &[];

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["benches", "crates", "samples", "tests", "xtask"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is part of the tree") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("the file is part of the tree").display().to_string()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = rust_files()
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name != "build.rs"))
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| relative(path))
        .collect();
    assert!(silent.is_empty(), "these files do not start with a `//!` line: {silent:#?}");
}

#[test]
fn no_file_is_too_long_to_hold_in_the_head() {
    let excused: BTreeMap<&str, &str> = LONG_FILES.iter().copied().collect();
    for path in rust_files() {
        let (name, lines) = (relative(&path), read(&path).lines().count());
        let is_tests = name.ends_with("tests.rs") || name.contains("/tests/");
        assert!(
            is_tests || lines <= MAX_LINES || excused.contains_key(name.as_str()),
            "{name} has {lines} lines: split it by meaning"
        );
    }
}

#[test]
fn module_names_have_a_meaning() {
    for path in rust_files() {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        assert!(!BANNED_MODULES.contains(&name.as_str()), "{}: name it after what it does", relative(&path));
    }
}

#[test]
fn crates_depend_downwards_only() {
    for (name, allowed) in MAY_USE {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in shipped.lines().filter(|line| line.starts_with("lateen-")) {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&used), "{name} may not use {used}");
        }
    }
    let listed: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for entry in std::fs::read_dir(root().join("crates")).expect("crates/ is part of the tree") {
        let name = entry.expect("crates/ can be listed").file_name().to_string_lossy().into_owned();
        assert!(listed.contains(&name.as_str()), "{name} is not in the table of who may use whom");
    }
}

//! Makes the console part of the program: whatever `cargo xtask console` has left in `console/dist`, and nothing where nobody
//! has built it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../console/dist");
    // The folder is part of the tree; cargo looks at everything in it.
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    if dist.join("index.html.gz").exists() {
        collect(&dist, &mut files);
    }
    files.sort();
    let mut out = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&dist).expect("it was found there").display().to_string();
        let (plain, packed) = (file.display(), format!("{}.gz", file.display()));
        writeln!(
            out,
            "    Asset {{ name: {name:?}, plain: include_bytes!({:?}), gzip: include_bytes!({packed:?}) }},",
            plain.to_string()
        )
        .expect("a String takes everything");
    }
    out.push(']');
    let place = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where")).join("console_assets.rs");
    std::fs::write(place, out).expect("the folder for it is there");
}

/// Files that have been compressed too.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if PathBuf::from(format!("{}.gz", path.display())).exists() {
            files.push(path);
        }
    }
}

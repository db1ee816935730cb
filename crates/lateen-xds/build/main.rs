//! Cuts the descriptor set that the `envoy-types` package carries (but does not export) down to the files whose messages
//! may stand in a configuration, and writes their fields down as tables, for the JSON form of xDS messages.

mod tables;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Files, and folders (with everything below), whose messages are wanted; what they import comes along.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/",
    "envoy/config/accesslog/v3/",
    "envoy/config/bootstrap/v3/",
    "envoy/config/cluster/v3/",
    "envoy/config/core/v3/",
    "envoy/config/endpoint/v3/",
    "envoy/config/listener/v3/",
    "envoy/config/metrics/v3/",
    "envoy/config/rbac/v3/",
    "envoy/config/route/v3/",
    "envoy/config/trace/v3/",
    "envoy/extensions/access_loggers/",
    "envoy/extensions/clusters/",
    "envoy/extensions/compression/",
    "envoy/extensions/early_data/",
    "envoy/extensions/filters/",
    "envoy/extensions/formatter/",
    "envoy/extensions/health_check/",
    "envoy/extensions/http/",
    "envoy/extensions/internal_redirect/",
    "envoy/extensions/load_balancing_policies/",
    "envoy/extensions/matching/",
    "envoy/extensions/path/",
    "envoy/extensions/rbac/",
    "envoy/extensions/request_id/",
    "envoy/extensions/resource_monitors/",
    "envoy/extensions/retry/",
    "envoy/extensions/stat_sinks/",
    "envoy/extensions/tracers/opentelemetry/",
    "envoy/extensions/transport_sockets/",
    "envoy/extensions/upstreams/",
    "envoy/service/discovery/v3/",
    "envoy/service/runtime/v3/",
    "envoy/service/secret/v3/",
    "google/protobuf/",
    "xds/type/",
];

#[expect(clippy::print_stdout, reason = "cargo reads it")]
fn main() {
    println!("cargo:rerun-if-changed=build");
    let source = envoy_types().join("src/generated/types.bin");
    println!("cargo:rerun-if-changed={}", source.display());
    let bytes = std::fs::read(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let set = FileDescriptorSet::decode(bytes.as_slice()).expect("envoy-types carries a descriptor set");
    let set = cut(set);
    let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(target.join("tables.rs"), tables::of(&set)).expect("OUT_DIR can be written");
    // The tests compare with a library that reads these.
    std::fs::write(target.join("descriptors.bin"), set.encode_to_vec()).expect("OUT_DIR can be written");
}

/// The folder of the `envoy-types` package that this build uses.
fn envoy_types() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        // Packages of other platforms are not downloaded.
        .arg(std::env::var_os("TARGET").expect("cargo sets TARGET"))
        .arg("--manifest-path")
        .arg(PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("Cargo.toml"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let package =
        packages.clone().find(|package| package["name"] == "envoy-types").expect("envoy-types is a dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a package has a manifest"));
    manifest.parent().expect("a manifest lies in a folder").to_owned()
}

/// The wanted files and what they import, imports first, without comments.
fn cut(set: FileDescriptorSet) -> FileDescriptorSet {
    let by_name: HashMap<String, &FileDescriptorProto> =
        set.file.iter().map(|file| (file.name().to_owned(), file)).collect();
    let wanted =
        set.file.iter().map(FileDescriptorProto::name).filter(|name| ROOTS.iter().any(|root| name.starts_with(root)));
    let mut kept = HashSet::new();
    let mut files = Vec::new();
    for name in wanted {
        keep(name, &by_name, &mut kept, &mut files);
    }
    FileDescriptorSet { file: files }
}

fn keep(
    name: &str,
    by_name: &HashMap<String, &FileDescriptorProto>,
    kept: &mut HashSet<String>,
    files: &mut Vec<FileDescriptorProto>,
) {
    let Some(file) = by_name.get(name) else { return };
    if !kept.insert(name.to_owned()) {
        return;
    }
    for import in &file.dependency {
        keep(import, by_name, kept, files);
    }
    files.push(FileDescriptorProto { source_code_info: None, ..(*file).clone() });
}

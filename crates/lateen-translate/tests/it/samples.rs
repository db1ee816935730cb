//! Every sample of Istio's, as its authors wrote it: what is made of it for a sidecar and for the gateway, by number and
//! digest of the resources of each type. The samples are not ours to copy; `tests/istio-samples.txt` is what they must
//! give. `UPDATE=1` rewrites it: then a changed line says which samples a change of the translation touches.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lateen_mesh::MeshConfig;

use crate::world::{TYPES, World, here, istio_samples, uncounted};

const SUMMARY: &str = "tests/istio-samples.txt";
/// Folders of objects that are to be read together with an application.
const RULES_OF_BOOKINFO: [&str; 2] = ["bookinfo/networking", "bookinfo/platform/kube"];
/// Other formats, and inputs of other tests.
const LEFT_OUT: [&str; 4] = ["analyze", "inject", "gateway-api-cases", "crd-all"];

fn samples(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the samples are readable") {
            let path = entry.expect("is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_sample_of_istio_gives_what_it_gave() {
    let Some(folder) = istio_samples() else { return };
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bookinfo = read(&folder.join("bookinfo/platform/kube/bookinfo.yaml"));
    let mut summary = String::new();
    let mut count = 0;
    for path in samples(&folder) {
        let name = path.strip_prefix(&folder).expect("it lies there").display().to_string();
        if LEFT_OUT.iter().any(|part| name.contains(part)) {
            continue;
        }
        count += 1;
        let text = read(&path);
        let parsed = lateen_api::parse_documents(&name, &text, "default");
        if let Some(found) = parsed.diagnostics.iter().find(|found| found.is_error()) {
            writeln!(summary, "{name}: {}", found.message).expect("strings take text");
            continue;
        }
        let mut texts = vec![("ingress.yaml", include_str!("ingress.yaml"))];
        if RULES_OF_BOOKINFO.iter().any(|rules| name.starts_with(rules)) && !name.ends_with("/bookinfo.yaml") {
            texts.push(("bookinfo.yaml", &bookinfo));
        }
        texts.push((&name, &text));
        let world = World::new(&texts, uncounted(MeshConfig { access_log_file: None, ..MeshConfig::default() }));
        for proxy in proxies(&world) {
            writeln!(summary, "{name} {proxy} {}", digests(&world, &proxy)).expect("strings take text");
        }
    }
    assert!(count > 60, "only {count} samples");
    let expected = here().join(SUMMARY);
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&expected, summary).expect("the summary is written");
    }
    let known = read(&expected);
    let changed: Vec<&str> = summary.lines().filter(|line| !known.lines().any(|known| known == *line)).collect();
    let gone = known.lines().filter(|line| !summary.lines().any(|now| now == *line)).count();
    assert!(changed.is_empty() && gone == 0, "not as before (UPDATE=1 rewrites):\n{}", changed.join("\n"));
}

/// The first sidecar by name, and the gateway.
fn proxies(world: &World) -> Vec<String> {
    let mut names: Vec<String> =
        world.mesh.workloads().map(|workload| format!("{}.{}", workload.name, workload.namespace)).collect();
    names.sort();
    let (gateways, sidecars): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with(".istio-system"));
    sidecars.into_iter().take(1).chain(gateways).collect()
}

/// Number and digest of the resources of each type. Maps have no order in bytes, so that JSON with sorted keys is taken.
fn digests(world: &World, proxy: &str) -> String {
    let of = |(short, url): &(&str, &str)| {
        let resources = world.resources(proxy, url);
        let all: Vec<String> =
            resources.iter().map(|named| crate::golden::sorted(crate::world::json(named)).to_string()).collect();
        let digest = xxhash_rust::xxh64::xxh64(all.join("\n").as_bytes(), 0);
        format!("{short}={}:{digest:016x}", resources.len())
    };
    TYPES.iter().map(of).collect::<Vec<_>>().join(" ")
}

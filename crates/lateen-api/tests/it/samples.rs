//! Real input by others, read where it lies: what Istio's users apply must be read whole.

use std::fs;
use std::path::{Path, PathBuf};

use lateen_api::{Object, Parsed, Severity, parse_documents, validate};

/// The folder of samples beside the checkout; without it the tests are left out aloud, and fail in CI.
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

/// Each file of these folders, by its path from the samples' root, with what was read from it.
fn read(folders: &[&str]) -> Vec<(String, Parsed)> {
    let Some(root) = samples() else { return Vec::new() };
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| yaml_files(&root.join(folder), &mut paths));
    assert!(paths.len() >= folders.len());
    let parse = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("it is text");
        let name = path.strip_prefix(&root).expect("it is below").display().to_string();
        let parsed = parse_documents(&name, &text, "default");
        (name, parsed)
    };
    paths.into_iter().map(parse).collect()
}

#[test]
fn our_own_samples_are_read_whole_and_keep_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut paths = Vec::new();
    yaml_files(&folder, &mut paths);
    // Which local command stands for which image is written in a form of its own.
    paths.retain(|path| path.file_name().is_some_and(|name| name != "images.yaml"));
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).expect("it is text");
        let parsed = parse_documents(&path.display().to_string(), &text, "default");
        assert_eq!(parsed.diagnostics, [], "{}", path.display());
        assert!(!parsed.objects.is_empty(), "{}", path.display());
        for found in parsed.objects.iter().flat_map(validate) {
            assert!(found.severity < Severity::Error, "{found}");
        }
    }
}

const APPLICATIONS: &[&str] = &[
    "bookinfo/networking",
    "bookinfo/platform/kube",
    "helloworld",
    "httpbin",
    "tcp-echo",
    "sleep",
    "curl",
    "websockets",
];

#[test]
fn applications_are_read_whole_and_other_kinds_are_named() {
    let mut unsupported: Vec<String> = Vec::new();
    let (mut files, mut objects) = (0, 0);
    for (name, parsed) in read(APPLICATIONS) {
        files += 1;
        objects += parsed.objects.len();
        for found in &parsed.diagnostics {
            assert_eq!(found.code, "LAT0004", "only kinds that are not read may be reported: {found}");
            assert_eq!((found.file.as_str(), found.severity), (name.as_str(), Severity::Error), "{found}");
            assert!(found.line > 0 && found.column > 0, "{found}");
            let object = found.object.as_ref().expect("it names the object");
            unsupported.push(format!("{name}: {object}"));
        }
    }
    if files == 0 {
        return;
    }
    assert!(objects >= 140, "{objects} objects in {files} files");
    unsupported.sort();
    let expected = [
        "bookinfo/platform/kube/bookinfo-certificate.yaml: Certificate istio-system/istio-ingressgateway-certs",
        "bookinfo/platform/kube/bookinfo-certificate.yaml: ClusterIssuer istio-system/letsencrypt-staging",
        "bookinfo/platform/kube/bookinfo-ingress.yaml: Ingress default/gateway",
    ];
    assert_eq!(unsupported, expected);
}

#[test]
fn applications_keep_the_rules() {
    let mut errors = Vec::new();
    for (_, parsed) in read(APPLICATIONS) {
        for found in parsed.objects.iter().flat_map(validate) {
            if found.severity == Severity::Error {
                errors.push(format!("{}:{} {}", found.file, found.line, found.message));
            }
        }
    }
    // The one that takes its password from a Secret, which a single machine does not have.
    let expected = ["bookinfo/platform/kube/bookinfo-mysql.yaml:69 Secrets are not supported on this machine"];
    if samples().is_some() {
        assert_eq!(errors, expected);
    }
}

#[test]
fn every_odd_corner_that_istio_allows_is_read() {
    for (name, parsed) in read(&["api-valid"]) {
        let other_kind = ["envoyfilter", "wasm"].iter().any(|kind| name.contains(kind));
        if other_kind {
            assert_eq!(parsed.diagnostics.len(), 1, "{name}: {:?}", parsed.diagnostics);
            assert_eq!(parsed.diagnostics[0].code, "LAT0004", "{name}");
            continue;
        }
        assert_eq!(parsed.diagnostics, [], "{name}");
        assert_eq!(parsed.objects.len(), 1, "{name}");
        for found in parsed.objects.iter().flat_map(validate) {
            let not_honoured = found.code == "LAT0005";
            assert!(found.severity < Severity::Error || not_honoured, "{found}");
        }
    }
}

#[test]
fn pods_as_users_write_them_are_read() {
    for (name, parsed) in read(&["inject"]) {
        for found in &parsed.diagnostics {
            assert_eq!(found.code, "LAT0004", "{name}: {found}");
        }
    }
}

#[test]
fn what_was_read_is_written_again_with_the_same_meaning() {
    for (name, parsed) in read(&["bookinfo", "helloworld", "httpbin", "tcp-echo", "websockets", "api-valid", "inject"])
    {
        for object in &parsed.objects {
            let json = object.to_json();
            let again: Object = lateen_api::parse_json("again", &json, "default").expect("what we write we read");
            assert!(again.same_content(object), "{name}: {} became {}", object.key(), again.to_json());
        }
    }
}

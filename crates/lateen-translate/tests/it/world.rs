//! A mesh made from YAML, and what its proxies would be sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::Object;
use lateen_api::mesh_config::DefaultProviders;
use lateen_mesh::{Mesh, MeshConfig, assume};
use lateen_translate::{Cache, Named, ProxyView, resources, type_url};
use serde_json::Value;

/// Short names of the resource types, in the order in which a proxy needs them.
pub(crate) const TYPES: [(&str, &str); 4] = [
    ("cluster", type_url::CLUSTER),
    ("endpoint", type_url::ENDPOINT),
    ("listener", type_url::LISTENER),
    ("route", type_url::ROUTE),
];

pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) cache: Cache,
    pub(crate) objects: Vec<Object>,
    /// Names files that exist nowhere.
    pub(crate) needs_files: bool,
}

impl World {
    /// A mesh of these texts, each with the file name to report; Deployments get pods.
    pub(crate) fn new(texts: &[(&str, &str)], config: MeshConfig) -> Self {
        let objects = objects(texts);
        let mesh = Mesh::build(&objects, &Arc::new(config), None);
        Self { mesh, cache: Cache::new(), objects, needs_files: false }
    }

    /// The resources of one type for the proxy `pod.namespace`.
    pub(crate) fn resources(&self, proxy: &str, type_url: &str) -> Vec<Arc<Named>> {
        resources(&self.mesh, &self.view(proxy), type_url, &self.cache)
    }

    pub(crate) fn view(&self, proxy: &str) -> ProxyView {
        let (pod, namespace) = proxy.split_once('.').expect("a proxy is named pod.namespace");
        ProxyView::of(&self.mesh, namespace, pod).unwrap_or_else(|| panic!("there is no pod {proxy}"))
    }

    /// One resource in its JSON form.
    pub(crate) fn one(&self, proxy: &str, type_url: &str, name: &str) -> Value {
        let all = self.resources(proxy, type_url);
        let found = all.iter().find(|named| *named.name == *name);
        let names: Vec<_> = all.iter().map(|named| &named.name).collect();
        json(found.unwrap_or_else(|| panic!("no {name} among {names:?}")))
    }

    /// Names of the resources of one type.
    pub(crate) fn names(&self, proxy: &str, type_url: &str) -> Vec<String> {
        self.resources(proxy, type_url).iter().map(|named| named.name.to_string()).collect()
    }
}

/// Reads objects that must be without fault, in the order of the texts, which is their age.
pub(crate) fn objects(texts: &[(&str, &str)]) -> Vec<Object> {
    let mut objects = Vec::new();
    for (file, text) in texts {
        let parsed = lateen_api::parse_documents(file, text, "default");
        assert!(parsed.diagnostics.iter().all(|found| !found.is_error()), "{file}: {:#?}", parsed.diagnostics);
        objects.extend(parsed.objects);
    }
    let aged = objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect::<Vec<_>>();
    assume::running(&aged)
}

/// The JSON form of a resource.
pub(crate) fn json(named: &Named) -> Value {
    lateen_xds::json::any_to_json(named.type_url, &named.pieces.concat())
        .unwrap_or_else(|error| panic!("{}: {error}", named.name))
}

/// All resources of a proxy by type and name.
pub(crate) fn everything(world: &World, proxy: &str) -> BTreeMap<String, Vec<Arc<Named>>> {
    TYPES.iter().map(|(short, url)| ((*short).to_owned(), world.resources(proxy, url))).collect()
}

pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Istio's samples, where they lie beside the checkout. Absent: the test cannot run, which CI does not accept.
pub(crate) fn istio_samples() -> Option<PathBuf> {
    let folder = here().join("../../../shared/istio-samples");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
    eprintln!("skipped: {} is absent", folder.display());
    None
}

/// Shows every proxy of every world that we have input for, with the name of the case.
pub(crate) fn visit(mut see: impl FnMut(&str, &World, &str)) {
    for (case, world) in worlds() {
        for workload in world.mesh.workloads() {
            see(&case, &world, &format!("{}.{}", workload.name, workload.namespace));
        }
    }
    crate::fields::visit(see);
}

/// The same, of a mesh that counts nothing: metrics are the larger part of every listener, and have tests of their own.
pub(crate) fn uncounted(config: MeshConfig) -> MeshConfig {
    let default_providers = DefaultProviders { metrics: Some(Vec::new()), ..config.default_providers };
    MeshConfig { default_providers, ..config }
}

/// The worlds of samples and golden files; two of them count.
fn worlds() -> Vec<(String, World)> {
    let counted = || MeshConfig { access_log_file: Some("/dev/stdout".to_owned()), ..MeshConfig::default() };
    let logged = || uncounted(counted());
    let mut out: Vec<(String, World)> =
        [("shop.yaml", include_str!("shop.yaml")), ("metrics.yaml", include_str!("../metrics/world.yaml"))]
            .map(|(name, text)| (name.to_owned(), World::new(&[(name, text)], counted())))
            .into();
    for kind in std::fs::read_dir(here().join("tests/golden")).expect("the folder exists") {
        for file in std::fs::read_dir(kind.expect("is readable").path()).expect("holds folders") {
            let path = file.expect("is readable").path();
            let name = path.file_name().expect("has a name").to_string_lossy().into_owned();
            if name.ends_with(".yaml") && !name.ends_with(".xds.yaml") {
                let text = std::fs::read_to_string(&path).expect("is readable");
                let mut world = World::new(&[(&name, &text)], logged());
                world.needs_files = text.lines().any(|line| line == "# needs files");
                out.push((name, world));
            }
        }
    }
    if let Some(samples) = istio_samples() {
        let read = |path: &str| std::fs::read_to_string(samples.join("bookinfo").join(path)).expect("is readable");
        let platform = read("platform/kube/bookinfo.yaml");
        for rules in ["virtual-service-reviews-90-10.yaml", "bookinfo-gateway.yaml", "egress-rule-google-apis.yaml"] {
            let rules_text = read(&format!("networking/{rules}"));
            let texts =
                [("ingress.yaml", include_str!("ingress.yaml")), ("bookinfo.yaml", &platform), (rules, &rules_text)];
            out.push((format!("bookinfo-{rules}"), World::new(&texts, logged())));
        }
    }
    out
}

//! Equal input gives equal bytes, and unchanged parts are not made again.

use std::sync::Arc;

use lateen_mesh::{Mesh, MeshConfig};
use lateen_translate::{Cache, ProxyView, resources, type_url};

use crate::world::{TYPES, World, everything};

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn equal_meshes_give_equal_bytes() {
    for proxy in ["web-0.default", "db-0.default", "gateway-0.istio-system"] {
        let first = everything(&World::new(&[("shop.yaml", SHOP)], MeshConfig::default()), proxy);
        for _ in 0..5 {
            let again = everything(&World::new(&[("shop.yaml", SHOP)], MeshConfig::default()), proxy);
            assert_eq!(first, again, "{proxy}");
        }
        assert!(first.values().all(|resources| !resources.is_empty()), "{proxy}");
    }
}

#[test]
fn proxies_of_one_namespace_share_what_does_not_depend_on_them() {
    let world = World::new(&[("shop.yaml", SHOP)], MeshConfig::default());
    let mut shared = 0;
    for (_, url) in TYPES {
        let ours = world.resources("web-0.default", url);
        let theirs = world.resources("web-1.default", url);
        shared += ours.iter().filter(|own| theirs.iter().any(|other| Arc::ptr_eq(own, other))).count();
    }
    assert!(shared > 20, "only {shared} resources are shared");
}

#[test]
fn a_rebuilt_mesh_keeps_what_has_not_changed() {
    let config = Arc::new(MeshConfig::default());
    let objects = crate::world::objects(&[("shop.yaml", SHOP)]);
    let cache = Cache::new();
    let first = Mesh::build(&objects, &config, None);
    // The same, without the rule for `api`.
    let without: Vec<_> = objects.iter().filter(|object| object.name() != "api-canary").cloned().collect();
    assert_eq!(without.len() + 1, objects.len());
    let second = Mesh::build(&without, &config, Some(&first));
    assert_eq!(second.generation(), first.generation() + 1);
    let of = |mesh: &Mesh, url: &str| {
        let view = ProxyView::of(mesh, "default", "web-0").expect("the pod exists");
        resources(mesh, &view, url, &cache)
    };
    for url in [type_url::CLUSTER, type_url::ENDPOINT] {
        let (before, after) = (of(&first, url), of(&second, url));
        let shared = before.iter().filter(|old| after.iter().any(|new| Arc::ptr_eq(old, new))).count();
        assert!(shared > 3, "{url}: only {shared} of {} are kept", before.len());
        assert_eq!(before, after, "a VirtualService changes no {url}");
    }
    assert_ne!(of(&first, type_url::ROUTE), of(&second, type_url::ROUTE));
}

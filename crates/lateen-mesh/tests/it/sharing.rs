//! What two meshes have in common they share.

use std::sync::Arc;

use lateen_mesh::{Mesh, MeshConfig, ProxyKind};

use crate::world::{deployment, object, objects, service};

fn text() -> String {
    deployment("shop", "web")
        + &service("shop", "web", "[{name: http, port: 80}]")
        + &object("DestinationRule", "shop", "web", "{host: web}")
        + &object("VirtualService", "shop", "web", "{hosts: [web], http: [{route: [{destination: {host: web}}]}]}")
}

#[test]
fn equal_objects_give_the_same_parts() {
    let config = Arc::new(MeshConfig::default());
    let first = Mesh::build(&objects(&text()), &config, None);
    // Read anew: equal, not identical.
    let second = Mesh::build(&objects(&text()), &Arc::new(MeshConfig::default()), Some(&first));
    assert_eq!(second.generation(), 2);
    assert!(Arc::ptr_eq(first.config(), second.config()));
    assert!(first.services().iter().zip(second.services()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(first.workloads().zip(second.workloads()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(first.virtual_services().iter().zip(second.virtual_services()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(first.destination_rules().zip(second.destination_rules()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(Arc::ptr_eq(first.endpoints(&first.services()[0]), second.endpoints(&second.services()[0])));
    let scope = |mesh: &Mesh| mesh.scope_of(mesh.workload("shop", "web-0").expect("is there"), ProxyKind::Sidecar);
    assert!(Arc::ptr_eq(&scope(&first), &scope(&second)));
}

#[test]
fn a_changed_object_changes_its_part_only() {
    let config = Arc::new(MeshConfig::default());
    let first = Mesh::build(&objects(&text()), &config, None);
    let changed = text() + &service("shop", "new", "[{name: http, port: 80}]");
    let second = Mesh::build(&objects(&changed), &config, Some(&first));
    let web = "web.shop.svc.cluster.local";
    assert!(Arc::ptr_eq(&first.services_of_host(web)[0], &second.services_of_host(web)[0]));
    let scope = |mesh: &Mesh| mesh.scope_of(mesh.workload("shop", "web-0").expect("is there"), ProxyKind::Sidecar);
    assert!(!Arc::ptr_eq(&scope(&first), &scope(&second)));
}

#[test]
fn another_configuration_shares_nothing() {
    let first = Mesh::build(&objects(&text()), &Arc::new(MeshConfig::default()), None);
    let other = MeshConfig { trust_domain: "other".to_owned(), ..MeshConfig::default() };
    let second = Mesh::build(&objects(&text()), &Arc::new(other), Some(&first));
    assert_eq!(second.generation(), 2);
    assert_eq!(*second.endpoints(&second.services()[0]).principals, ["spiffe://other/ns/shop/sa/web"]);
}

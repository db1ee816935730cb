//! Sidecars that ask for their virtual hosts one by one come to the same as those that have them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_mesh::ProxyKind;
use lateen_translate::{Named, ProxyView, resources, resources_named, type_url};
use serde_json::Value;

use crate::world::{World, json, visit};

/// The resources of a proxy that has asked for these virtual hosts.
fn with(world: &World, view: &ProxyView, hosts: &[String], type_url: &str) -> Vec<Arc<Named>> {
    let hosts = hosts.iter().map(|name| name.as_str().into()).collect();
    let view = ProxyView { demanded: Some(hosts), ..view.clone() };
    resources(&world.mesh, &view, type_url, &world.cache)
}

fn names(resources: &[Arc<Named>]) -> BTreeSet<&str> {
    resources.iter().map(|named| &*named.name).collect()
}

/// The names of clusters of services that stand anywhere in a resource.
fn add_clusters(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.starts_with("outbound|") => drop(out.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| add_clusters(item, out)),
        Value::Object(fields) => fields.values().for_each(|field| add_clusters(field, out)),
        _ => {}
    }
}

fn clusters_in(resources: &[Arc<Named>]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    resources.iter().for_each(|named| add_clusters(&json(named), &mut out));
    out
}

fn visit_sidecars(mut see: impl FnMut(&str, &World, &ProxyView)) {
    visit(|case, world, proxy| {
        let view = world.view(proxy);
        if view.kind == ProxyKind::Sidecar {
            see(&format!("{case}, {proxy}"), world, &view);
        }
    });
}

#[test]
fn before_any_request_there_is_what_listeners_lead_to_and_nothing_else() {
    let mut saved = 0;
    visit_sidecars(|case, world, view| {
        let listeners = with(world, view, &[], type_url::LISTENER);
        let all = resources(&world.mesh, view, type_url::CLUSTER, &world.cache);
        let some = with(world, view, &[], type_url::CLUSTER);
        assert!(names(&some).is_subset(&names(&all)), "{case}");
        let missing: Vec<_> = clusters_in(&listeners)
            .into_iter()
            .filter(|name| names(&all).contains(name.as_str()) && !names(&some).contains(name.as_str()))
            .collect();
        assert!(missing.is_empty(), "{case}: listeners lead to {missing:?}");
        saved += all.len() - some.len();
    });
    assert!(saved > 100, "{saved} clusters fewer");
}

#[test]
fn each_host_has_the_routes_of_the_whole_table_and_their_clusters() {
    let mut compared = 0;
    visit_sidecars(|case, world, view| {
        let all_clusters = resources(&world.mesh, view, type_url::CLUSTER, &world.cache);
        let tables = resources(&world.mesh, view, type_url::ROUTE, &world.cache);
        for table in tables.iter().filter(|table| table.name.parse::<u16>().is_ok()) {
            let whole = json(table);
            for expected in whole["virtual_hosts"].as_array().expect("each has a host for the unknown") {
                // A name that the wildcard is for, and no other.
                let hosts = expected["domains"].as_array().expect("hosts have domains").iter();
                let hosts = hosts.map(|domain| domain.as_str().expect("text").replace('*', "of-no-other"));
                for host in hosts.collect::<Vec<_>>() {
                    let name = format!("{}/{host}", table.name);
                    let found = with(world, view, std::slice::from_ref(&name), type_url::VIRTUAL_HOST);
                    let [found] = found.as_slice() else { panic!("{case}: {name} is not there") };
                    let got = json(found);
                    assert_eq!(got["routes"], expected["routes"], "{case}: {name}");
                    assert_eq!((&got["name"], &got["domains"]), (&Value::from(name.as_str()), &Value::from([host])));
                    let clusters = with(world, view, std::slice::from_ref(&name), type_url::CLUSTER);
                    let led_to = clusters_in(&[Arc::clone(found)]);
                    let missing: Vec<_> = led_to
                        .iter()
                        .filter(|name| names(&all_clusters).contains(name.as_str()))
                        .filter(|name| !names(&clusters).contains(name.as_str()))
                        .collect();
                    assert!(missing.is_empty(), "{case}: {name} leads to {missing:?}");
                    compared += 1;
                }
            }
        }
    });
    assert!(compared > 300, "{compared} hosts");
}

#[test]
fn what_is_no_name_of_a_virtual_host_is_not_there() {
    visit_sidecars(|case, world, view| {
        let asks = ProxyView { demanded: Some(Arc::default()), ..view.clone() };
        let names = ["80", "reviews", "/", "x/reviews", "081/reviews", "1/reviews"].map(str::to_owned);
        let found = resources_named(&world.mesh, &asks, type_url::VIRTUAL_HOST, &names, &world.cache);
        assert!(found.is_empty(), "{case}: {found:?}");
        // Nor is there one for a proxy that has its tables whole.
        let found = with(world, view, &["80/x".to_owned()], type_url::VIRTUAL_HOST).len();
        let whole = resources_named(&world.mesh, view, type_url::VIRTUAL_HOST, &["80/x".to_owned()], &world.cache);
        assert!(whole.is_empty() && found <= 1, "{case}");
    });
}

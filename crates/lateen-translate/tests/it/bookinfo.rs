//! The sample application that everybody knows, with the rules that come with it, as its authors wrote them.

use lateen_mesh::{MeshConfig, analyze};
use lateen_translate::type_url;
use serde_json::Value;

use crate::world::{World, everything, istio_samples};

/// The ingress gateway that the samples' Gateways select; the mesh brings it, not the samples.
const INGRESS: &str = include_str!("ingress.yaml");

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn bookinfo(rules: &[&str]) -> Option<World> {
    let folder = istio_samples()?.join("bookinfo");
    let mut texts = vec![("ingress.yaml".to_owned(), INGRESS.to_owned())];
    texts.push(("bookinfo.yaml".to_owned(), read(&folder.join("platform/kube/bookinfo.yaml"))));
    texts.extend(rules.iter().map(|rule| ((*rule).to_owned(), read(&folder.join("networking").join(rule)))));
    let texts: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    Some(World::new(&texts, MeshConfig::default()))
}

fn strings(values: &Value) -> Vec<&str> {
    values.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn virtual_host<'a>(table: &'a Value, name: &str) -> &'a Value {
    let hosts = table["virtual_hosts"].as_array().expect("has virtual hosts");
    hosts.iter().find(|host| host["name"] == name).unwrap_or_else(|| panic!("no {name}: {table:#}"))
}

#[test]
fn a_weighted_route_reaches_the_sidecars_that_call_the_service() {
    let Some(world) = bookinfo(&["destination-rule-all.yaml", "virtual-service-reviews-90-10.yaml"]) else { return };
    for caller in ["productpage-v1-0.default", "reviews-v1-0.default"] {
        let table = world.one(caller, type_url::ROUTE, "9080");
        let host = virtual_host(&table, "reviews.default.svc.cluster.local:9080");
        let domains = strings(&host["domains"]);
        for name in ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"] {
            assert!(domains.contains(&name), "{name} in {domains:?}");
        }
        let clusters = host["routes"][0]["route"]["weighted_clusters"]["clusters"].as_array().expect("is weighted");
        let shares: Vec<_> = clusters.iter().map(|one| (one["name"].as_str(), one["weight"].as_u64())).collect();
        assert_eq!(
            shares,
            [
                (Some("outbound|9080|v1|reviews.default.svc.cluster.local"), Some(90)),
                (Some("outbound|9080|v2|reviews.default.svc.cluster.local"), Some(10)),
            ]
        );
        let origin = &host["routes"][0]["metadata"]["filter_metadata"]["lateen"]["origin"][0];
        assert_eq!(origin["kind"], "VirtualService");
        assert_eq!(origin["file"], "virtual-service-reviews-90-10.yaml");
        assert!(origin["line"].as_f64().is_some_and(|line| line > 1.0), "{origin}");
        // What has no rule of its own still has a route, and unknown hosts pass.
        let ratings = virtual_host(&table, "ratings.default.svc.cluster.local:9080");
        assert_eq!(ratings["routes"][0]["route"]["cluster"], "outbound|9080||ratings.default.svc.cluster.local");
        assert_eq!(virtual_host(&table, "allow_any")["routes"][0]["route"]["cluster"], "PassthroughCluster");
    }
}

#[test]
fn subsets_hold_their_own_pods() {
    let Some(world) = bookinfo(&["destination-rule-all.yaml"]) else { return };
    let count = |name: &str| {
        let assignment = world.one("productpage-v1-0.default", type_url::ENDPOINT, name);
        assignment["endpoints"][0]["lb_endpoints"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count("outbound|9080||reviews.default.svc.cluster.local"), 3);
    assert_eq!(count("outbound|9080|v2|reviews.default.svc.cluster.local"), 1);
    assert_eq!(count("outbound|9080|v2-mysql|ratings.default.svc.cluster.local"), 0);
}

#[test]
fn the_ingress_gateway_routes_what_its_gateway_says() {
    let Some(world) = bookinfo(&["bookinfo-gateway.yaml"]) else { return };
    let gateway = "istio-ingressgateway-0.istio-system";
    assert_eq!(world.names(gateway, type_url::LISTENER), ["0.0.0.0_8080"]);
    let table = world.one(gateway, type_url::ROUTE, "http.8080");
    let routes = virtual_host(&table, "*:8080")["routes"].as_array().expect("has routes");
    let clusters: Vec<_> = routes.iter().map(|route| route["route"]["cluster"].as_str()).collect();
    assert_eq!(clusters, [Some("outbound|9080||productpage.default.svc.cluster.local"); 5]);
    assert_eq!(routes[0]["match"]["path"], "/productpage");
    assert_eq!(routes[1]["match"]["prefix"], "/static");
    assert!(world.names(gateway, type_url::CLUSTER).iter().all(|name| !name.starts_with("inbound")));
}

#[test]
fn a_service_port_of_a_gateway_is_the_pods_port() {
    let Some(world) = bookinfo(&["certmanager-gateway.yaml"]) else { return };
    let gateway = "istio-ingressgateway-0.istio-system";
    assert_eq!(world.names(gateway, type_url::LISTENER), ["0.0.0.0_8080"]);
    assert_eq!(world.names(gateway, type_url::ROUTE), ["http.8080"]);
}

#[test]
fn every_sample_rule_translates_for_every_proxy() {
    let Some(samples) = istio_samples() else { return };
    let folder = samples.join("bookinfo/networking");
    let mut rules: Vec<String> = std::fs::read_dir(&folder)
        .expect("the samples are readable")
        .map(|file| file.expect("is readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    rules.sort();
    assert!(rules.len() >= 15, "only {rules:?}");
    for rule in &rules {
        let Some(world) = bookinfo(&[rule]) else { return };
        let proxies: Vec<String> =
            world.mesh.workloads().map(|workload| format!("{}.{}", workload.name, workload.namespace)).collect();
        assert_eq!(proxies.len(), 7, "six pods and the gateway");
        for proxy in &proxies {
            for (kind, resources) in everything(&world, proxy) {
                assert!(!resources.is_empty() || proxy.starts_with("istio-ingress"), "{rule}: {proxy} has no {kind}");
            }
        }
        // A route to what is not there is kept, and said.
        let unknown = dangling(&world, &proxies);
        let found = analyze(&world.objects, &world.mesh);
        if !unknown.is_empty() {
            assert!(found.iter().any(|one| one.code == "IST0101"), "{rule}: {unknown:?} but {found:#?}");
        }
    }
}

/// Clusters that routes name and that there are not.
fn dangling(world: &World, proxies: &[String]) -> Vec<String> {
    fn named(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(text) if (key == "cluster" || key == "name") && text.starts_with("outbound|") => {
                            out.push(text.clone());
                        }
                        _ => named(value, out),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| named(item, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for proxy in proxies {
        let clusters = world.names(proxy, type_url::CLUSTER);
        for resource in world.resources(proxy, type_url::ROUTE) {
            let mut wanted = Vec::new();
            named(&crate::world::json(&resource), &mut wanted);
            out.extend(wanted.into_iter().filter(|name| !clusters.contains(name)));
        }
    }
    out.sort();
    out.dedup();
    out
}

//! What is in force while objects come and go one by one.

use std::sync::Arc;

use lateen_api::Object;
use lateen_mesh::{InForce, MeshConfig};

use crate::world::{deployment, object, objects, service};

/// A mesh whose objects change.
struct Running(Option<InForce>);

impl Running {
    /// The control plane starts with these.
    fn start(parts: &[&str]) -> Self {
        let mut running = Self(None);
        running.write(parts);
        running
    }

    /// These are all objects now, beside the service `web`; gives what is found wrong.
    fn write(&mut self, parts: &[&str]) -> Vec<String> {
        let base = deployment("default", "web") + &service("default", "web", "[{name: http, port: 80}]");
        let objects: Vec<Object> = objects(&(base + &parts.concat()));
        let next = InForce::new(&objects, &Arc::new(MeshConfig::default()), self.0.as_ref());
        let findings = next.findings(&objects);
        let found = findings.iter().filter(|finding| finding.code == "IST0101").map(ToString::to_string).collect();
        self.0 = Some(next);
        found
    }

    /// Subsets to which the VirtualServices in force lead.
    fn routes(&self) -> Vec<&str> {
        let mesh = &self.0.as_ref().expect("it is started").mesh;
        let rules = mesh.virtual_services().iter().flat_map(|routes| &routes.http).flat_map(|rule| &rule.route.route);
        rules.map(|route| route.destination.subset.as_str()).collect()
    }

    /// Subsets of the DestinationRules in force.
    fn subsets(&self) -> Vec<&str> {
        let mesh = &self.0.as_ref().expect("it is started").mesh;
        mesh.destination_rules().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str()).collect()
    }

    /// Every route in force leads to a subset in force.
    fn is_whole(&self) -> bool {
        self.routes().iter().all(|route| self.subsets().contains(route))
    }
}

fn routes_to(subset: &str) -> String {
    let spec = format!("{{hosts: [web], http: [{{route: [{{destination: {{host: web, subset: {subset}}}}}]}}]}}");
    object("VirtualService", "default", "web", &spec)
}

fn rule(subsets: &[&str]) -> String {
    let subsets: Vec<String> = subsets.iter().map(|name| format!("{{name: {name}, labels: {{app: web}}}}")).collect();
    object("DestinationRule", "default", "web", &format!("{{host: web, subsets: [{}]}}", subsets.join(", ")))
}

#[test]
fn routes_wait_for_the_subsets_they_name() {
    let mut mesh = Running::start(&[]);
    let found = mesh.write(&[&routes_to("v1")]);
    assert!(found[0].contains("has a subset `v1`; until there is, this VirtualService is not in force"), "{found:?}");
    assert_eq!(mesh.routes(), [""; 0]);
    mesh.write(&[&routes_to("v1")]);
    assert_eq!(mesh.routes(), [""; 0], "it goes on waiting");
    assert_eq!(mesh.write(&[&routes_to("v1"), &rule(&["v1"])]), [""; 0]);
    assert_eq!((mesh.routes(), mesh.subsets()), (vec!["v1"], vec!["v1"]));
}

#[test]
fn a_subset_stays_while_routes_lead_to_it() {
    let mut mesh = Running::start(&[&routes_to("v1"), &rule(&["v1", "v2"])]);
    let found = mesh.write(&[&routes_to("v1")]);
    assert!(found[0].contains("the subset stays in force as it was"), "{found:?}");
    assert_eq!((mesh.routes(), mesh.subsets()), (vec!["v1"], vec!["v1"]));
    mesh.write(&[&routes_to("v1"), &rule(&["v2"])]);
    assert_eq!(mesh.subsets(), ["v2", "v1"], "the new rule, and what it lacks");
    assert_eq!(mesh.write(&[&rule(&["v2"])]), [""; 0]);
    assert_eq!(mesh.subsets(), ["v2"]);
}

#[test]
fn an_edit_that_leads_nowhere_is_not_taken() {
    let mut mesh = Running::start(&[&routes_to("v1"), &rule(&["v1"])]);
    let found = mesh.write(&[&routes_to("v9"), &rule(&["v1"])]);
    assert!(found[0].contains("a subset `v9`; the last good version stays in force"), "{found:?}");
    assert_eq!(mesh.routes(), ["v1"]);
    // The last good version is whole for as long as it is in force.
    mesh.write(&[&routes_to("v9")]);
    assert_eq!((mesh.routes(), mesh.subsets()), (vec!["v1"], vec!["v1"]));
    assert_eq!(mesh.write(&[&routes_to("v9"), &rule(&["v9"])]), [""; 0]);
    assert_eq!((mesh.routes(), mesh.subsets()), (vec!["v9"], vec!["v9"]));
}

#[test]
fn an_edit_with_a_gateway_or_a_host_that_is_not_there_is_not_taken() {
    let bound = |gateways: &str, host: &str| {
        let spec =
            format!("{{hosts: [web], gateways: [{gateways}], http: [{{route: [{{destination: {{host: {host}}}}}]}}]}}");
        object("VirtualService", "default", "web", &spec)
    };
    for wrong in [bound("mesh, front", "web"), bound("mesh", "wed")] {
        let mut mesh = Running::start(&[&bound("mesh", "web")]);
        let found = mesh.write(&[&wrong]);
        assert!(found[0].contains("the last good version stays in force"), "{found:?}");
        let routes = &mesh.0.as_ref().expect("it is started").mesh.virtual_services()[0];
        assert_eq!(routes.gateways, ["mesh"]);
        assert_eq!(routes.http[0].route.route[0].destination.host, "web");
    }
}

#[test]
fn what_is_there_at_the_start_is_taken_and_can_be_edited() {
    let mut mesh = Running::start(&[&routes_to("v1")]);
    assert_eq!(mesh.routes(), ["v1"], "as Istio has it, it answers 503");
    mesh.write(&[&routes_to("v2")]);
    assert_eq!(mesh.routes(), ["v2"], "there is nothing good to hold on to");
}

/// From any combination of what there is to any other, by single writes in any order.
#[test]
fn in_any_order_of_single_writes_no_route_leads_nowhere() {
    let (routes, rules) = ([None, Some("v1"), Some("v2")], [None, Some("v1"), Some("v2")]);
    let mut mesh = Running::start(&[]);
    let (mut at_routes, mut at_rules) = (0, 0);
    for step in 0..2000_usize {
        // Any sequence that visits all neighbours will do.
        let choice = step * step + step / 7;
        if choice.is_multiple_of(2) {
            at_routes = choice / 2 % 3
        } else {
            at_rules = choice / 3 % 3
        }
        let routes = routes[at_routes].map(routes_to).unwrap_or_default();
        let found = mesh.write(&[&routes, &rules[at_rules].map(|name| rule(&[name])).unwrap_or_default()]);
        assert!(mesh.is_whole(), "{:?} of {:?} in step {step}", mesh.routes(), mesh.subsets());
        if found.is_empty() {
            assert_eq!(mesh.routes().first().copied(), [None, Some("v1"), Some("v2")][at_routes], "all is in force");
        }
    }
}

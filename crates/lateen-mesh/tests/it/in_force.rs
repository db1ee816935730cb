//! What is in force while objects come and go one by one.

use std::sync::Arc;

use lateen_api::Object;
use lateen_mesh::MtlsMode::{self, Disable, Permissive, Strict};
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

/// istio#48290.
mod handover {
    use super::*;

    fn peers(mode: &str) -> String {
        object("PeerAuthentication", "default", "default", &format!("{{mtls: {{mode: {mode}}}}}"))
    }

    /// What `web` takes, and whether its clients use mutual TLS.
    fn ends(mesh: &Running) -> (MtlsMode, bool) {
        let mesh = &mesh.0.as_ref().expect("it is started").mesh;
        let workload = mesh.workload("default", "web-0").expect("it is there");
        let service = &mesh.services_of_host("web.default.svc.cluster.local")[0];
        (mesh.mtls(workload).mode(8080), mesh.endpoints(service).all_take_mesh_tls(80))
    }

    /// All proxies have taken the step that they are at.
    fn step(mesh: &mut Running) {
        let before = mesh.0.take().expect("it is started");
        let step = before.mesh.handover().expect("there is a step to take");
        // The next mesh, as the control plane makes it: of the same objects.
        let next = before.after([]).expect("nothing has changed").handed_on(step);
        assert_ne!(next.mesh.handover(), Some(step), "each step has a number of its own");
        mesh.0 = Some(next);
    }

    fn is_over(mesh: &Running) -> bool {
        mesh.0.as_ref().is_some_and(|mesh| mesh.mesh.handover().is_none())
    }

    #[test]
    fn servers_take_both_until_clients_have_changed() {
        for (from, to, called) in
            [("DISABLE", "STRICT", true), ("STRICT", "DISABLE", false), ("DISABLE", "PERMISSIVE", true)]
        {
            let mut mesh = Running::start(&[&peers(from)]);
            assert!(is_over(&mesh), "{from}: what there is at the start is in force");
            mesh.write(&[&peers(to)]);
            assert_eq!(ends(&mesh), (Permissive, !called), "{from} to {to}");
            step(&mut mesh);
            assert_eq!(ends(&mesh), (Permissive, called), "{from} to {to}");
            step(&mut mesh);
            let asked = [("STRICT", Strict), ("DISABLE", Disable), ("PERMISSIVE", Permissive)];
            let asked = asked.into_iter().find(|(name, _)| *name == to).expect("it is a mode").1;
            assert_eq!((ends(&mesh), is_over(&mesh)), ((asked, called), true), "{from} to {to}");
        }
    }

    #[test]
    fn a_change_of_few_objects_goes_the_same_way() {
        let mut mesh = Running::start(&[&peers("DISABLE")]);
        let changed: Vec<Object> = objects(&peers("STRICT"));
        let changes = changed.iter().map(|object| (object.key(), object)).collect::<Vec<_>>();
        let before = mesh.0.take().expect("it is started");
        mesh.0 = before.after(changes.iter().map(|(key, object)| (key, Some(*object))));
        assert_eq!(ends(&mesh), (Permissive, false));
        step(&mut mesh);
        assert_eq!(ends(&mesh), (Permissive, true));
        step(&mut mesh);
        assert_eq!((ends(&mesh), is_over(&mesh)), ((Strict, true), true));
    }

    #[test]
    fn what_leaves_clients_as_they_are_is_in_force_at_once() {
        let mut mesh = Running::start(&[]);
        mesh.write(&[&peers("STRICT")]);
        assert_eq!((ends(&mesh), is_over(&mesh)), ((Strict, true), true));
    }

    #[test]
    fn other_changes_neither_end_nor_hurry_it() {
        let mut mesh = Running::start(&[&peers("DISABLE")]);
        mesh.write(&[&peers("STRICT")]);
        let policy = object("AuthorizationPolicy", "default", "nobody", "{}");
        mesh.write(&[&peers("STRICT"), &policy]);
        assert_eq!(ends(&mesh), (Permissive, false));
        step(&mut mesh);
        mesh.write(&[&peers("STRICT"), &routes_to("v1"), &rule(&["v1"])]);
        assert_eq!(ends(&mesh), (Permissive, true));
    }

    #[test]
    fn a_change_of_mind_counts_those_who_may_have_heard() {
        let mut mesh = Running::start(&[&peers("DISABLE")]);
        mesh.write(&[&peers("STRICT")]);
        mesh.write(&[&peers("DISABLE")]);
        assert_eq!((ends(&mesh), is_over(&mesh)), ((Disable, false), true), "no client has heard of it");
        mesh.write(&[&peers("STRICT")]);
        let first = mesh.0.as_ref().and_then(|mesh| mesh.mesh.handover()).expect("it has begun");
        step(&mut mesh);
        mesh.write(&[&peers("DISABLE")]);
        assert_eq!(ends(&mesh), (Permissive, true), "clients may have heard: they stay until servers take both");
        let now = mesh.0.take().expect("it is started").handed_on(first);
        assert!(now.mesh.handover().is_some_and(|step| step > first), "news of an earlier step is none");
        mesh.0 = Some(now);
        step(&mut mesh);
        assert_eq!(ends(&mesh), (Permissive, false));
        step(&mut mesh);
        assert_eq!((ends(&mesh), is_over(&mesh)), ((Disable, false), true));
    }
}

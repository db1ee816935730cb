//! A mesh that follows changes one by one is the mesh that all objects make, and no proxy is told too little of a change.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::{Object, ObjectKey};
use lateen_mesh::{InForce, Mesh, MeshConfig, ProxyKind};
use lateen_translate::{Cache, Changes, Named, ProxyView, changes, resources, type_url};
use proptest::prelude::*;

const ALL_TYPES: [&str; 6] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::VIRTUAL_HOST,
    type_url::SECRET,
];

/// What a sidecar that asks for its virtual hosts one by one has asked for.
const DEMANDED: [&str; 4] = ["80/web", "80/web.b", "80/nobody.example", "8080/web.b.svc.cluster.local"];

/// Names of objects, and what each may be: each place in a list is one object in one of its forms.
fn forms() -> Vec<Vec<String>> {
    let mut forms = vec![
        services(
            "a",
            "web",
            &["ports: [{name: http, port: 80}]", "ports: [{name: http, port: 80}, {name: tcp, port: 90}]"],
        ),
        services("a", "db", &["clusterIP: None, ports: [{name: tcp-db, port: 5432}]"]),
        services("b", "web", &["ports: [{name: http, port: 80, targetPort: named}]", "ports: [{port: 8080}]"]),
        services("b", "more", &["selector: {app: web}, ports: [{name: grpc, port: 9000}]"]),
        rules(
            "DestinationRule",
            "a",
            "web",
            &[
                "host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]",
                "host: web, subsets: [{name: v2, labels: {version: v2}}]",
                "host: web, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}",
                "host: web, workloadSelector: {matchLabels: {version: v1}}, trafficPolicy: {tls: {mode: DISABLE}}",
            ],
        ),
        rules(
            "VirtualService",
            "a",
            "web",
            &[
                "hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]",
                "hosts: [web], http: [{route: [{destination: {host: web, subset: v2}}]}]",
                "hosts: [db], tcp: [{route: [{destination: {host: db}}]}]",
                "hosts: [web.b.svc.cluster.local], exportTo: ['.'], http: [{timeout: 3s, route: [{destination: {host: web.b.svc.cluster.local}}]}]",
            ],
        ),
        rules(
            "VirtualService",
            "b",
            "edge",
            &["hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: web}}]}]"],
        ),
        rules(
            "Gateway",
            "b",
            "edge",
            &["selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]"],
        ),
        rules(
            "Sidecar",
            "a",
            "narrow",
            &["egress: [{hosts: ['./*']}]", "workloadSelector: {labels: {version: v1}}, egress: [{hosts: ['b/*']}]"],
        ),
        rules(
            "ServiceEntry",
            "a",
            "out",
            &[
                "hosts: [out.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}], endpoints: [{address: one.example}]",
                "hosts: [out.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: web}}",
            ],
        ),
        rules(
            "WorkloadEntry",
            "a",
            "web-0",
            &["address: 10.9.0.1, labels: {app: web, version: v2}, serviceAccount: vm"],
        ),
        rules("PeerAuthentication", "a", "own", &["mtls: {mode: STRICT}", "mtls: {mode: DISABLE}"]),
        rules("PeerAuthentication", "istio-system", "mesh", &["mtls: {mode: STRICT}", "mtls: {mode: DISABLE}"]),
        rules(
            "DestinationRule",
            "istio-system",
            "wide",
            &[
                "host: '*.svc.cluster.local', trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 7}}}",
                "host: '*.b.svc.cluster.local', trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}",
                "host: web.a.svc.cluster.local, exportTo: ['.'], trafficPolicy: {tls: {mode: DISABLE}}",
            ],
        ),
        rules(
            "ServiceEntry",
            "b",
            "same",
            &[
                "hosts: [web.a.svc.cluster.local, out.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 10.9.1.1}]",
                "hosts: [out.example], resolution: STATIC, exportTo: ['.'], ports: [{number: 443, name: tls, protocol: TLS}], endpoints: [{address: 10.9.1.2, labels: {version: v1}}]",
            ],
        ),
        rules(
            "VirtualService",
            "b",
            "any",
            &[
                "hosts: ['*.a.svc.cluster.local'], http: [{match: [{sourceNamespace: b}], timeout: 4s, route: [{destination: {host: also}}]}, {route: [{destination: {host: web}}]}]",
                "hosts: [also, nowhere.example], http: [{match: [{sourceLabels: {version: v2}}], route: [{destination: {host: web.a.svc.cluster.local, subset: v2}}]}, {mirror: {host: db.a.svc.cluster.local}, route: [{destination: {host: web}}]}]",
                "hosts: [web], http: [{timeout: 9s, route: [{destination: {host: more}}]}]",
            ],
        ),
        ["web.a.svc.cluster.local", "web.b.svc.cluster.local"].map(alias).to_vec(),
        [".", "*"].map(exported).to_vec(),
        rules("AuthorizationPolicy", "b", "some", &["rules: [{from: [{source: {namespaces: [a]}}]}]", "{}"]),
    ];
    for (namespace, name, app) in [
        ("a", "web-0", "web"),
        ("a", "web-1", "web"),
        ("a", "db-0", "db"),
        ("b", "web-0", "web"),
        ("b", "edge-0", "edge"),
    ] {
        forms.push(pods(namespace, name, app));
    }
    forms
}

/// Another name in `b` for a service.
fn alias(target: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: also, namespace: b}}\nspec: {{type: ExternalName, externalName: {target}, ports: [{{name: http, port: 80}}]}}\n"
    )
}

/// A service in `a` that others see or not.
fn exported(to: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: own, namespace: a, annotations: {{networking.istio.io/exportTo: '{to}'}}}}\n\
         spec: {{selector: {{app: web}}, clusterIP: 10.96.7.7, ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn services(namespace: &str, name: &str, specs: &[&str]) -> Vec<String> {
    let own = |spec: &&str| {
        let selector = if spec.contains("selector") { String::new() } else { format!("selector: {{app: {name}}}, ") };
        let address = if spec.contains("clusterIP") {
            String::new()
        } else {
            format!("clusterIP: 10.96.0.{}, ", name.len() + namespace.len() * 8)
        };
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{selector}{address}{spec}}}\n"
        )
    };
    specs.iter().map(own).collect()
}

fn rules(kind: &str, namespace: &str, name: &str, specs: &[&str]) -> Vec<String> {
    let group = if kind.ends_with("Policy") || kind.ends_with("Authentication") { "security" } else { "networking" };
    let head = format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: "
    );
    specs
        .iter()
        .map(|spec| if *spec == "{}" { format!("{head}{{}}\n") } else { format!("{head}{{{spec}}}\n") })
        .collect()
}

/// Ready and not, of either version, with another account, and without a proxy.
fn pods(namespace: &str, name: &str, app: &str) -> Vec<String> {
    let address = format!(
        "10.8.{}.{}",
        namespace.len() + app.len(),
        name.as_bytes().iter().map(|b| u32::from(*b)).sum::<u32>() % 250
    );
    let pod = |version: &str, account: &str, ready: &str, tls: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {app}, version: {version}{tls}}}
  annotations: {{sidecar.istio.io/status: '{{}}'}}
spec: {{serviceAccountName: {account}, containers: [{{name: app, image: app, ports: [{{name: named, containerPort: 8080}}]}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: '{ready}'}}]}}
"
        )
    };
    let meshed = ", security.istio.io/tlsMode: istio";
    vec![
        pod("v1", app, "True", meshed),
        pod("v1", app, "False", meshed),
        pod("v2", app, "True", meshed),
        pod("v1", "other", "True", meshed),
        pod("v1", app, "True", ""),
    ]
}

/// All forms, read once.
fn objects() -> Vec<Vec<Object>> {
    let read = |text: &String| {
        let mut parsed = lateen_api::parse_documents("test.yaml", text, "default");
        assert!(parsed.diagnostics.iter().all(|found| !found.is_error()), "{:#?}\n{text}", parsed.diagnostics);
        parsed.objects.remove(0)
    };
    let aged = |(age, forms): (u64, &Vec<String>)| forms.iter().map(|text| read(text).with_age(age)).collect();
    (1..).zip(&forms()).map(aged).collect()
}

/// Proxies as they were last seen, with all that they should have, by type.
type Proxies = BTreeMap<String, (ProxyView, BTreeMap<&'static str, Vec<Arc<Named>>>)>;

/// One line of history: what is in force, and what was translated of it.
struct Line {
    in_force: InForce,
    proxies: Proxies,
}

fn translate(mesh: &Mesh, cache: &Cache) -> Proxies {
    let of = |view: ProxyView| {
        let all = ALL_TYPES.map(|url| (url, resources(mesh, &view, url, cache)));
        (view, BTreeMap::from(all))
    };
    let views = mesh.workloads().flat_map(|workload| {
        let Some(view) = ProxyView::of(mesh, &workload.namespace, &workload.name) else { return Vec::new() };
        // The pod of the gateway is one, whatever its template.
        let kind = if &*workload.name == "edge-0" { ProxyKind::Gateway } else { view.kind };
        let name = format!("{}/{}", workload.namespace, workload.name);
        let whole = ProxyView { kind, ..view };
        let asking = ProxyView { demanded: Some(DEMANDED.map(Arc::from).into()), ..whole.clone() };
        let asking = (kind == ProxyKind::Sidecar).then(|| (format!("{name}, asking"), of(asking)));
        std::iter::once((name, of(whole))).chain(asking).collect()
    });
    views.collect()
}

/// What differs is among what is said to differ.
fn is_told(before: &[Arc<Named>], after: &[Arc<Named>], told: &Changes) -> Result<(), String> {
    let by_name = |list: &[Arc<Named>]| -> BTreeMap<Arc<str>, u64> {
        list.iter().map(|named| (Arc::clone(&named.name), named.version)).collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let names = before.keys().chain(after.keys());
    let differing: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    let fine = match told {
        Changes::Anything => true,
        Changes::Nothing => differing.is_empty(),
        Changes::Named(told) => differing.iter().all(|name| told.contains(name)),
    };
    if fine { Ok(()) } else { Err(format!("{differing:?} differ, and {told:?} is said")) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_changes_comes_to_the_same_as_building_anew(
        start in prop::collection::vec(0_usize..4, 24),
        steps in prop::collection::vec((0_usize..48, 0_usize..6), 1..14),
    ) {
        let (forms, config, cache) = (objects(), Arc::new(MeshConfig::default()), Cache::new());
        prop_assert_eq!(start.len(), forms.len());
        let mut present: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        for (own, form) in forms.iter().zip(&start) {
            // Most are there in the beginning.
            present.extend(own.get(*form).or_else(|| own.first().filter(|_| *form < 3)).map(|object| (object.key(), object.clone())));
        }
        let first = InForce::new(present.values(), &config, None);
        let mut reference = InForce::new(present.values(), &config, None);
        let mut line = Line { proxies: translate(&first.mesh, &cache), in_force: first };
        for (place, form) in steps {
            // Pods change more often than rules.
            let own = &forms[if place < forms.len() { place } else { forms.len() - 1 - place % 5 }];
            let key = own[0].key();
            match own.get(form) {
                Some(object) => drop(present.insert(key.clone(), object.clone())),
                None => drop(present.remove(&key)),
            }
            let next = line.in_force.after([(&key, present.get(&key))]);
            let next = next.unwrap_or_else(|| InForce::new(present.values(), &config, Some(&line.in_force)));
            // Built anew with nothing to share but what the rules about what is in force remember.
            let mut plain = present.values().map(|object| object.clone().with_age(object.age())).collect::<Vec<_>>();
            plain.reverse();
            reference = InForce::new(&plain, &config, Some(&reference));
            let (proxies, expected) = (translate(&next.mesh, &cache), translate(&reference.mesh, &Cache::new()));
            for (name, (_, expected)) in &expected {
                for (url, expected) in expected {
                    prop_assert_eq!(&proxies[name].1[url], expected, "{} {} after {}", name, url, key);
                }
            }
            prop_assert_eq!(proxies.len(), expected.len());
            prop_assert_eq!(next.findings(present.values()), reference.findings(&plain));
            for (name, (view, now)) in &proxies {
                let Some((old, before)) = line.proxies.get(name) else { continue };
                for (url, now) in now {
                    let told = changes((&line.in_force.mesh, old), (&next.mesh, view), url);
                    if let Err(error) = is_told(&before[url], now, &told) {
                        prop_assert!(false, "{} {} after {}: {}", name, url, key, error);
                    }
                }
            }
            line = Line { in_force: next, proxies };
        }
    }
}

/// The small shop, its pods among it, and the changes that its proxies are told of when one object changes.
#[test]
fn a_change_of_a_pod_is_told_by_name_and_only_to_those_who_see_it() {
    let (forms, config) = (objects(), Arc::new(MeshConfig::default()));
    let mut present: BTreeMap<ObjectKey, Object> = forms
        .iter()
        .filter(|own| own[0].name() != "web-0" || own[0].namespace() == "b")
        .map(|own| (own[0].key(), own[0].clone()))
        .collect();
    let before = InForce::new(present.values(), &config, None);
    // Another version of a pod of web in a: not ready.
    let pod = forms.iter().flatten().filter(|object| object.name() == "web-1").nth(1).expect("it has that form");
    present.insert(pod.key(), pod.clone());
    let after = before.after([(&pod.key(), Some(pod))]).expect("pods are easy");
    let told = |namespace: &str, name: &str, url: &str| {
        let view = |mesh: &Mesh| ProxyView::of(mesh, namespace, name).expect("it is there");
        changes((&before.mesh, &view(&before.mesh)), (&after.mesh, &view(&after.mesh)), url)
    };
    let names = [
        "outbound|80||web.a.svc.cluster.local",
        "outbound|80|v1|web.a.svc.cluster.local",
        "outbound|80|v2|web.a.svc.cluster.local",
    ];
    let Changes::Named(mut seen) = told("a", "db-0", type_url::ENDPOINT) else { panic!("endpoints are named") };
    seen.sort();
    assert!(names.iter().all(|name| seen.iter().any(|seen| **seen == **name)), "{seen:?}");
    for url in [type_url::ROUTE, type_url::SECRET] {
        assert_eq!(told("a", "db-0", url), Changes::Nothing, "{url}");
    }
}

#[test]
fn what_a_proxy_does_not_see_changes_nothing_for_it() {
    let hidden = "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: b, annotations: {networking.istio.io/exportTo: '.'}}\n\
                  spec: {selector: {app: web}, clusterIP: 10.96.9.9, ports: [{name: http, port: 80}]}\n";
    let mut present: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let own = |text: &str| lateen_api::parse_documents("test.yaml", text, "default").objects.remove(0);
    let texts = [
        services("a", "web", &["ports: [{name: http, port: 80}]"]),
        vec![hidden.to_owned()],
        pods("a", "web-0", "web"),
        pods("b", "web-0", "web"),
    ];
    present.extend(texts.iter().map(|forms| own(&forms[0])).map(|object| (object.key(), object)));
    let before = InForce::new(present.values(), &Arc::new(MeshConfig::default()), None);
    // The only pod of the hidden service, not ready any more; and with another account.
    for form in [1, 3] {
        let pod = own(&pods("b", "web-0", "web")[form]);
        let after = before.after([(&pod.key(), Some(&pod))]).expect("pods are easy");
        let view = |mesh: &Mesh, namespace: &str| ProxyView::of(mesh, namespace, "web-0").expect("it is there");
        for url in ALL_TYPES {
            let told = changes((&before.mesh, &view(&before.mesh, "a")), (&after.mesh, &view(&after.mesh, "a")), url);
            assert_eq!(told, Changes::Nothing, "{url}");
        }
    }
}

#[test]
fn a_changed_route_makes_one_virtual_host_and_one_table_anew() {
    let own = |text: &str| lateen_api::parse_documents("test.yaml", text, "default").objects.remove(0);
    let route = |timeout: u32| {
        let spec = format!("hosts: [web], http: [{{timeout: {timeout}s, route: [{{destination: {{host: web}}}}]}}]");
        own(&rules("VirtualService", "a", "web", &[&spec])[0])
    };
    let names = ["web", "db", "more", "other"];
    let services = names.iter().map(|name| own(&services("a", name, &["ports: [{name: http, port: 80}]"])[0]));
    let pod = own(&pods("a", "web-0", "web")[0]);
    let objects: Vec<Object> = services.chain([pod, route(1)]).collect();
    let before = InForce::new(&objects, &Arc::new(MeshConfig::default()), None);
    let cache = Cache::new();
    let tables = |in_force: &InForce| {
        let view = ProxyView::of(&in_force.mesh, "a", "web-0").expect("it is there");
        resources(&in_force.mesh, &view, type_url::ROUTE, &cache)
    };
    let old = tables(&before);
    // Four hosts and their table.
    assert_eq!((old.len(), cache.made()), (1, 5));
    let changed = route(2);
    let after = before.after([(&changed.key(), Some(&changed))]).expect("rules are easy");
    let new = tables(&after);
    assert_ne!(old[0].version, new[0].version);
    assert_eq!(cache.made(), 7);
    let shared = new[0].pieces.iter().filter(|piece| old[0].pieces.iter().any(|old| Arc::ptr_eq(old, piece)));
    assert_eq!(shared.count(), 3, "the other hosts are the same bytes");
}

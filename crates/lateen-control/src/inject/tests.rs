//! Who is injected, and what injection adds.

use lateen_api::{Object, parse_documents, validate};

use super::*;

fn pod(metadata: &str, spec: &str) -> Resource<Pod> {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: shop, {metadata}}}\nspec: {{{spec}}}\n"
    );
    let parsed = parse_documents("pod.yaml", &text, "default");
    assert_eq!(parsed.diagnostics, [], "{text}");
    let Some(Object::Pod(pod)) = parsed.objects.into_iter().next() else { panic!("no pod in {text}") };
    (*pod).clone()
}

const APP: &str = "serviceAccountName: web, containers: [{name: app, image: app:1}]";

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn injected(metadata: &str, spec: &str) -> Resource<Pod> {
    let out = inject(&pod(metadata, spec), &labels("istio-injection=enabled"), &[], &Settings::default()).unwrap();
    assert_eq!(out.refused, None);
    out.pod
}

fn container<'a>(pod: &'a Resource<Pod>, name: &str) -> &'a Container {
    let spec = &pod.spec.spec;
    spec.containers.iter().chain(&spec.init_containers).find(|it| it.name == name).expect("the container is there")
}

fn variable<'a>(container: &'a Container, name: &str) -> &'a str {
    let found = container.env.iter().find(|variable| variable.name == name).expect("the variable is there");
    found.value.as_deref().unwrap_or("by reference")
}

#[test]
fn namespace_pod_and_revision_decide_who_is_injected() {
    use NotInjected::{HostNetwork, NamespaceDisabled, NotAsked, OtherRevision, PodDisabled};
    let yes = "labels: {sidecar.istio.io/inject: 'true'}";
    let no = "labels: {sidecar.istio.io/inject: 'false'}";
    let other = || Some(OtherRevision("canary".to_owned()));
    for (namespace, metadata, expected) in [
        ("", "", Some(NotAsked)),
        ("", yes, None),
        ("", no, Some(NotAsked)),
        ("", "annotations: {sidecar.istio.io/inject: 'true'}", Some(NotAsked)),
        ("", "labels: {istio.io/rev: default}", None),
        ("", "labels: {istio.io/rev: canary}", other()),
        ("istio-injection=enabled", "", None),
        ("istio-injection=enabled", no, Some(PodDisabled)),
        ("istio-injection=enabled", "annotations: {sidecar.istio.io/inject: 'false'}", Some(PodDisabled)),
        ("istio-injection=enabled", "labels: {sidecar.istio.io/inject: 'yes'}", None),
        ("istio-injection=enabled", "labels: {sidecar.istio.io/inject: maybe}", Some(PodDisabled)),
        (
            "istio-injection=enabled",
            "labels: {sidecar.istio.io/inject: 'true'}, annotations: {sidecar.istio.io/inject: 'false'}",
            None,
        ),
        ("istio-injection=disabled", yes, Some(NamespaceDisabled)),
        ("istio.io/rev=default", "", None),
        ("istio.io/rev=default", no, Some(PodDisabled)),
        ("istio.io/rev=canary", yes, other()),
        ("istio-injection=enabled,istio.io/rev=canary", "", None),
    ] {
        let out = inject(&pod(metadata, APP), &labels(namespace), &[], &Settings::default()).unwrap();
        assert_eq!(out.refused, expected, "{namespace} | {metadata}");
    }
    let shared =
        inject(&pod(yes, &format!("hostNetwork: true, {APP}")), &labels(""), &[], &Settings::default()).unwrap();
    assert_eq!(shared.refused, Some(HostNetwork));
}

#[test]
fn a_pod_that_is_left_alone_is_as_it_was() {
    let before = pod("", APP);
    assert_eq!(inject(&before, &labels(""), &[], &Settings::default()).unwrap().pod, before);
    let mut system = pod("labels: {sidecar.istio.io/inject: 'true'}", APP);
    system.metadata.namespace = "kube-system".to_owned();
    assert_eq!(inject(&system, &labels(""), &[], &Settings::default()).unwrap().pod, system);
}

#[test]
fn the_folder_of_the_identity_socket_is_the_proxys_too() {
    let folder = "/var/run/secrets/workload-spiffe-uds";
    let mount = |pod: &Resource<Pod>| {
        let mounts = container(pod, PROXY_CONTAINER).volume_mounts.clone();
        mounts.into_iter().find(|mount| mount.mount_path == folder)
    };
    assert_eq!(mount(&injected("", APP)), None);
    for volume in ["emptyDir: {}", "hostPath: {path: /run/spire/sockets}"] {
        let pod = injected("", &format!("{APP}, volumes: [{{name: workload-socket, {volume}}}]"));
        let mount = mount(&pod).expect("the volume is mounted");
        assert_eq!((mount.name.as_str(), mount.read_only), ("workload-socket", false), "{volume}");
    }
}

#[test]
fn a_sidecar_comes_with_redirection_identity_and_labels() {
    let pod = injected("labels: {app: web, version: v2}", APP);
    let proxy = container(&pod, PROXY_CONTAINER);
    assert!(proxy.image.starts_with("lateen/proxy:"));
    assert_eq!(proxy.args, ["sidecar"]);
    for (name, value) in [
        ("POD_NAME", "by reference"),
        ("INSTANCE_IP", "by reference"),
        ("CA_ADDR", "lateend.istio-system.svc:15012"),
        ("ISTIO_META_WORKLOAD_NAME", "web-1"),
        ("ISTIO_META_APP_CONTAINERS", "app"),
        ("LATEEN_SOCKET_MARK", "1337"),
    ] {
        assert_eq!(variable(proxy, name), value, "{name}");
    }
    let told: BTreeMap<String, String> = serde_json::from_str(variable(proxy, "LATEEN_LABELS")).unwrap();
    assert_eq!(told, pod.metadata.labels);
    for (label, value) in [(TLS_MODE, "istio"), (CANONICAL_NAME, "web"), (CANONICAL_REVISION, "v2")] {
        assert_eq!(pod.metadata.label(label), Some(value));
    }
    let init = container(&pod, INIT_CONTAINER);
    let expected = "apply -p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -b * -d 15090,15021,15020 -i *";
    assert_eq!(init.args.join(" "), expected);
    assert_eq!(pod.spec.spec.volumes.len(), 2);
    let status: serde_json::Value = serde_json::from_str(pod.metadata.annotation(STATUS).unwrap()).unwrap();
    assert_eq!(status["containers"], json!([PROXY_CONTAINER]));
    assert_eq!(pod.metadata.annotation(DEFAULT_CONTAINER), Some("app"));
    let object = Object::from(pod);
    let errors: Vec<_> = validate(&object).into_iter().filter(Diagnostic::is_error).collect();
    assert_eq!(errors, [], "what is injected can be run");
}

#[test]
fn metrics_of_the_application_are_given_by_the_proxy() {
    let of = |metadata: &str| {
        let pod = injected(metadata, APP);
        let told = container(&pod, PROXY_CONTAINER).env.iter().find(|it| it.name == "ISTIO_PROMETHEUS_ANNOTATIONS");
        let told = told.and_then(|it| it.value.clone());
        let said = |name: &str| pod.metadata.annotation(&format!("prometheus.io/{name}")).map(str::to_owned);
        (told, [said("scrape"), said("path"), said("port")].map(Option::unwrap_or_default).join(" "))
    };
    let of_proxy = "true /stats/prometheus 15020".to_owned();
    assert_eq!(of(""), (None, of_proxy.clone()));
    let scraped = "prometheus.io/scrape: 'true', prometheus.io/port: '9102'";
    assert_eq!(
        of(&format!("annotations: {{{scraped}}}")),
        (Some(r#"{"scrape":"true","port":"9102"}"#.to_owned()), of_proxy)
    );
    assert_eq!(of("annotations: {prometheus.io/scrape: 'false'}"), (None, "false  ".to_owned()));
    let apart = format!("annotations: {{prometheus.istio.io/merge-metrics: 'false', {scraped}}}");
    assert_eq!(of(&apart), (None, "true  9102".to_owned()));
}

#[test]
fn injecting_twice_is_injecting_once() {
    let once = injected("labels: {app: web}", APP);
    let twice = inject(&once, &labels("istio-injection=enabled"), &[], &Settings::default()).unwrap();
    assert_eq!((twice.pod, twice.refused), (once, Some(NotInjected::Already)));
}

#[test]
fn a_gateway_is_the_proxy_itself() {
    let spec = "containers: [{name: istio-proxy, image: auto, ports: [{containerPort: 8080}], env: [{name: TRUST_DOMAIN, value: mine}]}]";
    let pod = injected("annotations: {inject.istio.io/templates: gateway}, labels: {istio: ingressgateway}", spec);
    assert_eq!(pod.spec.spec.containers.len(), 1);
    assert_eq!(pod.spec.spec.init_containers, []);
    let proxy = container(&pod, PROXY_CONTAINER);
    assert!(proxy.image.starts_with("lateen/proxy:"));
    assert_eq!(proxy.args, ["router"]);
    assert_eq!(variable(proxy, "TRUST_DOMAIN"), "mine");
    assert_eq!(proxy.env.iter().filter(|variable| variable.name == "TRUST_DOMAIN").count(), 1);
    assert_eq!(proxy.ports.iter().map(|port| port.container_port).collect::<Vec<_>>(), [8080, 15090]);
    assert_eq!(pod.metadata.label(TLS_MODE), None);
}

#[test]
fn the_owner_gives_its_name_and_long_names_are_cut() {
    let owner = |kind: &str, name: &str| {
        format!("ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, controller: true}}]")
    };
    let name = |metadata: &str| injected(metadata, APP).metadata.label(CANONICAL_NAME).unwrap().to_owned();
    assert_eq!(name(&owner("ReplicaSet", "reviews-v1-7d4f")), "reviews-v1");
    assert_eq!(name(&owner("Job", "nightly")), "nightly");
    assert_eq!(name(&owner("Job", &"n".repeat(80))), "n".repeat(63));
}

#[test]
fn traffic_annotations_become_arguments() {
    let prefix = "traffic.sidecar.istio.io";
    for (annotations, expected) in [
        ("includeInboundPorts: ''", "-b  -i *"),
        ("includeInboundPorts: '80,443'", "-b 80,443 -i *"),
        ("excludeInboundPorts: '9000'", "-b * -d 15090,15021,15020,9000 -i *"),
        ("includeOutboundIPRanges: '10.0.0.0/8'", "-b * -d 15090,15021,15020 -i 10.0.0.0/8"),
        ("includeOutboundIPRanges: ''", "-b * -d 15090,15021,15020 -i "),
        ("excludeOutboundIPRanges: '10.1.0.0/16'", "-b * -d 15090,15021,15020 -i * -x 10.1.0.0/16"),
        ("excludeOutboundPorts: '25'", "-b * -d 15090,15021,15020 -o 25 -i *"),
        ("excludeInterfaces: 'eth1'", "-b * -d 15090,15021,15020 -i * -c eth1"),
    ] {
        let pod = injected(&format!("annotations: {{{prefix}/{annotations}}}"), APP);
        assert_eq!(container(&pod, INIT_CONTAINER).args[11..].join(" "), expected, "{annotations}");
    }
    let none = injected("annotations: {sidecar.istio.io/interceptionMode: NONE}", APP);
    assert_eq!(none.spec.spec.init_containers, []);
}

#[test]
fn annotations_that_cannot_be_honoured_keep_the_pod_out() {
    for (annotation, value) in [
        ("traffic.sidecar.istio.io/excludeInboundPorts", "80,http"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "70000"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "0"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/33"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "a-name-that-is-too-long"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/interceptionMode", "redirect"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("inject.istio.io/templates", "sidecar,custom"),
    ] {
        let pod = pod(&format!("annotations: {{{annotation}: '{value}'}}"), APP);
        let problems = inject(&pod, &labels("istio-injection=enabled"), &[], &Settings::default()).unwrap_err();
        assert_eq!(problems.len(), 1, "{annotation}");
        assert_eq!(
            (problems[0].field.as_str(), problems[0].line),
            (&*format!("metadata.annotations[{annotation}]"), 3)
        );
    }
}

#[test]
fn one_annotation_about_resources_replaces_all_defaults() {
    let resources = |metadata: &str| container(&injected(metadata, APP), PROXY_CONTAINER).resources.clone().unwrap();
    let defaults = resources("");
    assert_eq!((defaults.requests.len(), defaults.limits["memory"].0.as_str()), (2, "1Gi"));
    let own = resources("annotations: {sidecar.istio.io/proxyCPU: 50m}");
    assert_eq!((own.requests.len(), own.requests["cpu"].0.as_str(), own.limits.len()), (1, "50m", 0));
}

/// Pods of a file, those in the templates of Deployments included.
fn pods_of(path: &std::path::Path) -> Vec<Resource<Pod>> {
    let text = std::fs::read_to_string(path).expect("the sample is text");
    let parsed = parse_documents(&path.display().to_string(), &text, "default");
    let of = |object: Object| match object {
        Object::Pod(pod) => Some((*pod).clone()),
        Object::Deployment(deployment) => {
            let template = &deployment.spec.template;
            let mut metadata = template.metadata.clone();
            metadata.name.clone_from(&deployment.metadata.name);
            metadata.namespace.clone_from(&deployment.metadata.namespace);
            Some(Resource::new(metadata, Pod { spec: template.spec.clone(), status: None }, "sample"))
        }
        _ => None,
    };
    parsed.objects.into_iter().filter_map(of).collect()
}

/// Other people's pods, where they are at hand: each is injected or refused with a reason.
#[test]
fn pods_of_other_people_are_injected_or_refused_with_a_reason() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio-samples/inject");
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut count = 0;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        for pod in pods_of(&path) {
            count += 1;
            match inject(&pod, &labels("istio-injection=enabled"), &[], &Settings::default()) {
                Ok(Injected { pod: out, refused: None }) => assert!(own_proxy(&out).is_some(), "{}", path.display()),
                Ok(Injected { refused: Some(_), .. }) => {}
                Err(problems) => assert!(!problems.is_empty(), "{}", path.display()),
            }
        }
    }
    assert!(count > 20, "{count} pods are too few to be the samples");
}

fn proxy_config(namespace: &str, name: &str, spec: &str) -> std::sync::Arc<Resource<ProxyConfig>> {
    let text = format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    );
    let parsed = parse_documents("config.yaml", &text, "default");
    assert_eq!(parsed.diagnostics, [], "{text}");
    let Some(Object::ProxyConfig(config)) = parsed.objects.into_iter().next() else { panic!("no config in {text}") };
    config
}

#[test]
fn proxy_configs_and_the_annotation_decide_by_precedence() {
    let root =
        proxy_config("istio-system", "mesh", "{concurrency: 1, environmentVariables: {A: root, B: root, C: root}}");
    let namespace = proxy_config("shop", "all", "{concurrency: 2, environmentVariables: {B: namespace}}");
    let own = proxy_config(
        "shop",
        "web",
        "{selector: {matchLabels: {app: web}}, concurrency: 4, environmentVariables: {D: own, TRUST_DOMAIN: td}}",
    );
    let others = [
        proxy_config("shop", "db", "{selector: {matchLabels: {app: db}}, concurrency: 9}"),
        proxy_config("elsewhere", "all", "{concurrency: 9}"),
        proxy_config("istio-system", "web", "{selector: {matchLabels: {app: web}}, concurrency: 9}"),
    ];
    let annotation =
        "annotations: {proxy.istio.io/config: '{concurrency: 3, proxyMetadata: {C: pod, D: pod, E: true}}'}";
    let run = |metadata: &str, configs: &[&std::sync::Arc<Resource<ProxyConfig>>]| {
        let configs: Vec<&Resource<ProxyConfig>> = configs.iter().copied().chain(&others).map(|it| &**it).collect();
        let pod = pod(&format!("labels: {{app: web}}, {metadata}"), APP);
        let out = inject(&pod, &labels("istio-injection=enabled"), &configs, &Settings::default()).unwrap().pod;
        let proxy = container(&out, PROXY_CONTAINER);
        let set = |name: &&str| proxy.env.iter().any(|variable| variable.name == *name);
        let told: Vec<String> = ["A", "B", "C", "D", "E"]
            .iter()
            .filter(|name| set(name))
            .map(|name| variable(proxy, name).to_owned())
            .collect();
        (proxy.args[1..].join(" "), told.join(" "), variable(proxy, "TRUST_DOMAIN").to_owned())
    };
    let is = |args: &str, told: &str, domain: &str| (args.to_owned(), told.to_owned(), domain.to_owned());
    assert_eq!(run("", &[]), is("", "", "cluster.local"));
    assert_eq!(run("", &[&root]), is("--concurrency 1", "root root root", "cluster.local"));
    assert_eq!(run("", &[&root, &namespace]), is("--concurrency 2", "root namespace root", "cluster.local"));
    assert_eq!(
        run(annotation, &[&root, &namespace]),
        is("--concurrency 3", "root namespace pod pod true", "cluster.local")
    );
    assert_eq!(run(annotation, &[&root, &namespace, &own]), is("--concurrency 4", "root namespace pod own true", "td"));
}

#[test]
fn an_annotation_for_the_proxy_that_cannot_be_read_lets_no_pod_in() {
    for (text, message) in [
        ("concurrency: many", "`concurrency: \"many\"` is no number of threads"),
        ("proxyMetadata: [A]", "`proxyMetadata` is no map of names to texts"),
        ("proxyMetadata: {A: [b]}", "`proxyMetadata.A` is no text"),
    ] {
        let pod = pod(&format!("annotations: {{proxy.istio.io/config: '{text}'}}"), APP);
        let refused = inject(&pod, &labels("istio-injection=enabled"), &[], &Settings::default()).unwrap_err();
        assert_eq!(refused[0].message, message);
        assert_eq!(refused[0].field, "metadata.annotations[proxy.istio.io/config]");
    }
}

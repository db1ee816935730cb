//! Who is injected, and what injection adds.

use lateen_api::yaml::documents;
use lateen_api::{Object, parse_documents, parse_json, validate};

use super::*;

fn pod(metadata: &str, spec: &str) -> Value {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: shop, {metadata}}}\nspec: {{{spec}}}\n"
    );
    documents(&text).remove(0).expect("the pod is YAML").to_json()
}

/// Injects a pod of this namespace.
fn run(
    pod: &Value,
    namespace: &str,
    configs: &[&Resource<ProxyConfig>],
    settings: &Settings,
) -> Result<Injected, Vec<Diagnostic>> {
    let name = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    let subject = Subject::new(pod, name, None, Place::nowhere("pod.yaml"))?;
    inject(&subject, &labels(namespace), configs, settings)
}

const ENABLED: &str = "istio-injection=enabled";
const APP: &str = "serviceAccountName: web, containers: [{name: app, image: app:1}]";

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn injected_by(settings: &Settings, metadata: &str, spec: &str) -> Value {
    let out = run(&pod(metadata, spec), ENABLED, &[], settings).unwrap();
    assert_eq!(out.refused, None);
    out.pod
}

/// On one machine.
fn injected(metadata: &str, spec: &str) -> Value {
    injected_by(&Settings::default(), metadata, spec)
}

/// On a cluster.
fn on_cluster(metadata: &str, spec: &str) -> Value {
    injected_by(&Settings::on_kubernetes(), metadata, spec)
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    lists.flatten().find(|container| container["name"] == name).expect("the container is there")
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let found = container["env"].as_array()?.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str().unwrap_or("by reference"))
}

fn label<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["labels"][name].as_str()
}

fn refused(annotation: &str, value: &str) -> Vec<Diagnostic> {
    let pod = pod(&format!("annotations: {{{annotation}: '{value}'}}"), APP);
    run(&pod, ENABLED, &[], &Settings::on_kubernetes()).expect_err(&format!("{annotation}: {value}"))
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
        let out = run(&pod(metadata, APP), namespace, &[], &Settings::default()).unwrap();
        assert_eq!(out.refused, expected, "{namespace} | {metadata}");
    }
    let shared = run(&pod(yes, &format!("hostNetwork: true, {APP}")), "", &[], &Settings::default()).unwrap();
    assert_eq!(shared.refused, Some(HostNetwork));
}

#[test]
fn a_pod_that_is_left_alone_is_as_it_was() {
    let before = pod("", APP);
    assert_eq!(run(&before, "", &[], &Settings::default()).unwrap().pod, before);
    let mut system = pod("labels: {sidecar.istio.io/inject: 'true'}", APP);
    system["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(run(&system, "", &[], &Settings::default()).unwrap().pod, system);
}

#[test]
fn the_folder_of_the_identity_socket_is_the_proxys_too() {
    let folder = "/var/run/secrets/workload-spiffe-uds";
    let mount = |pod: &Value| {
        let mounts = container(pod, PROXY_CONTAINER)["volumeMounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["mountPath"] == folder)
    };
    assert_eq!(mount(&injected("", APP)), None);
    for volume in ["emptyDir: {}", "hostPath: {path: /run/spire/sockets}"] {
        let pod = injected("", &format!("{APP}, volumes: [{{name: workload-socket, {volume}}}]"));
        let mount = mount(&pod).expect("the volume is mounted");
        assert_eq!(mount, json!({"name": "workload-socket", "mountPath": folder}), "{volume}");
    }
}

#[test]
fn a_sidecar_comes_with_redirection_identity_and_labels() {
    let pod = injected("labels: {app: web, version: v2}", APP);
    let proxy = container(&pod, PROXY_CONTAINER);
    assert!(proxy["image"].as_str().unwrap().starts_with("lateen/proxy:"));
    assert_eq!(words(&proxy["args"]), ["sidecar"]);
    for (name, value) in [
        ("POD_NAME", "by reference"),
        ("INSTANCE_IP", "by reference"),
        ("CA_ADDR", "lateend.istio-system.svc:15012"),
        ("ISTIO_META_WORKLOAD_NAME", "web-1"),
        ("ISTIO_META_APP_CONTAINERS", "app"),
        ("LATEEN_SOCKET_MARK", "1337"),
    ] {
        assert_eq!(variable(proxy, name), Some(value), "{name}");
    }
    let told: Value = serde_json::from_str(variable(proxy, "LATEEN_LABELS").unwrap()).unwrap();
    assert_eq!(told, pod["metadata"]["labels"], "the proxy knows all labels of its pod");
    for (name, value) in [
        ("security.istio.io/tlsMode", "istio"),
        ("service.istio.io/canonical-name", "web"),
        ("service.istio.io/canonical-revision", "v2"),
    ] {
        assert_eq!(label(&pod, name), Some(value));
    }
    let init = container(&pod, INIT_CONTAINER);
    let expected = "apply -p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -b * -d 15090,15021,15020 -i *";
    assert_eq!(words(&init["args"]).join(" "), expected);
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 2);
    let annotations = &pod["metadata"]["annotations"];
    let status: Value = serde_json::from_str(annotations[STATUS].as_str().unwrap()).unwrap();
    assert_eq!(status["containers"], json!([PROXY_CONTAINER]));
    assert_eq!(status["initContainers"], json!([INIT_CONTAINER]));
    assert_eq!(annotations[DEFAULT_CONTAINER], "app");
    let object = parse_json("pod", &pod, "default").expect("what is injected is a pod");
    let errors: Vec<_> = validate(&object).into_iter().filter(Diagnostic::is_error).collect();
    assert_eq!(errors, [], "what is injected can be run");
}

#[test]
fn metrics_of_the_application_are_given_by_the_proxy() {
    let of = |metadata: &str| {
        let pod = injected(metadata, APP);
        let told = variable(container(&pod, PROXY_CONTAINER), "ISTIO_PROMETHEUS_ANNOTATIONS").map(str::to_owned);
        let annotations = &pod["metadata"]["annotations"];
        let said = |name: &str| annotations[format!("prometheus.io/{name}")].as_str().map(str::to_owned);
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
    for settings in [Settings::default(), Settings::on_kubernetes()] {
        let once = injected_by(&settings, "labels: {app: web}", APP);
        let twice = run(&once, ENABLED, &[], &settings).unwrap();
        assert_eq!((twice.pod, twice.refused), (once, Some(NotInjected::Already)));
    }
}

#[test]
fn a_gateway_is_the_proxy_itself() {
    let spec = "containers: [{name: istio-proxy, image: auto, ports: [{containerPort: 8080}], env: [{name: TRUST_DOMAIN, value: mine}]}]";
    let pod = injected("annotations: {inject.istio.io/templates: gateway}, labels: {istio: ingressgateway}", spec);
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(pod["spec"]["initContainers"], Value::Null);
    let proxy = container(&pod, PROXY_CONTAINER);
    assert!(proxy["image"].as_str().unwrap().starts_with("lateen/proxy:"));
    assert_eq!(words(&proxy["args"]), ["router"]);
    assert_eq!(variable(proxy, "TRUST_DOMAIN"), Some("mine"));
    let domains = proxy["env"].as_array().unwrap().iter().filter(|variable| variable["name"] == "TRUST_DOMAIN");
    assert_eq!(domains.count(), 1);
    let ports = proxy["ports"].as_array().unwrap().iter();
    assert_eq!(ports.map(|port| port["containerPort"].as_u64().unwrap()).collect::<Vec<_>>(), [15090, 8080]);
    assert_eq!(label(&pod, "security.istio.io/tlsMode"), None);
}

#[test]
fn the_owner_gives_its_name_and_long_names_are_cut() {
    let owner = |kind: &str, name: &str| {
        format!("ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, controller: true}}]")
    };
    let name = |metadata: &str| label(&injected(metadata, APP), "service.istio.io/canonical-name").unwrap().to_owned();
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
        ("kubevirtInterfaces: 'net1,net2'", "-b * -d 15090,15021,15020 -i * -k net1,net2"),
    ] {
        let pod = injected(&format!("annotations: {{{prefix}/{annotations}}}"), APP);
        assert_eq!(words(&container(&pod, INIT_CONTAINER)["args"])[11..].join(" "), expected, "{annotations}");
    }
    for metadata in [
        "annotations: {sidecar.istio.io/interceptionMode: NONE}",
        "annotations: {proxy.istio.io/config: 'interceptionMode: NONE'}",
    ] {
        assert_eq!(injected(metadata, APP)["spec"]["initContainers"], Value::Null, "{metadata}");
    }
}

#[test]
fn annotations_that_cannot_be_honoured_keep_the_pod_out() {
    for (annotation, value) in [
        ("traffic.sidecar.istio.io/excludeInboundPorts", "80,http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "70000"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "0"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/33"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "a-name-that-is-too-long"),
        ("istio.io/reroute-virtual-interfaces", "-x"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/interceptionMode", "redirect"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("sidecar.istio.io/nativeSidecar", "maybe"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "on"),
        ("sidecar.istio.io/proxyImage", "x y"),
        ("sidecar.istio.io/proxyImageType", "debug"),
        ("sidecar.istio.io/proxyCPU", "much"),
        ("sidecar.istio.io/discoveryAddress", "here"),
        ("status.sidecar.istio.io/port", "http"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "0"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "-1"),
        ("inject.istio.io/templates", "sidecar,custom"),
    ] {
        let problems = refused(annotation, value);
        assert_eq!(problems.len(), 1, "{annotation}");
        assert_eq!(problems[0].field, format!("metadata.annotations[{annotation}]"));
    }
}

/// What cannot be had by an annotation alone: the node's files, the proxy's identity, a program of one's own, a capability.
#[test]
fn hostile_annotations_are_refused_or_stay_words() {
    let volume = |text: &str| refused("sidecar.istio.io/userVolume", text)[0].message.clone();
    assert!(volume(r#"{"a": {"hostPath": {"path": "/"}}}"#).starts_with("volume `a` is a hostPath"));
    assert!(volume(r#"{"a": {"emptyDir": {}, "hostPath": {"path": "/"}}}"#).contains("of one kind"));
    assert!(volume(r#"{"istio-token": {"emptyDir": {}}}"#).contains("already"));
    assert!(volume("[]").contains("JSON object"));
    for (mount, complaint) in [
        (r#"{"nobody": {"mountPath": "/a"}}"#, "there is no volume `nobody`"),
        (r#"{"mine": {"mountPath": "/var/run/secrets/tokens"}}"#, "the proxy's own"),
        (r#"{"mine": {"mountPath": "/var/run"}}"#, "the proxy's own"),
        (r#"{"mine": {"mountPath": "/var//./run/secrets/istio/"}}"#, "the proxy's own"),
        (r#"{"mine": {"mountPath": "/usr/local/bin"}}"#, "the proxy's own"),
        (r#"{"mine": {"mountPath": "/"}}"#, "no path from the root"),
        (r#"{"mine": {"mountPath": "/a/../proc"}}"#, "no path from the root"),
        (r#"{"mine": {"mountPath": "/a", "mountPropagation": "Bidirectional"}}"#, "no `mountPropagation`"),
    ] {
        let pod = pod(
            &format!("annotations: {{sidecar.istio.io/userVolumeMount: '{mount}'}}"),
            &format!("{APP}, volumes: [{{name: mine, emptyDir: {{}}}}]"),
        );
        let problems = run(&pod, ENABLED, &[], &Settings::on_kubernetes()).expect_err(mount);
        assert!(problems[0].message.contains(complaint), "{mount}: {}", problems[0].message);
    }
    for (annotation, value) in [
        ("traffic.sidecar.istio.io/includeInboundPorts", "80;reboot"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "$(reboot)"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "a b"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "../x"),
        ("sidecar.istio.io/logLevel", "info --config-path /x"),
        ("sidecar.istio.io/proxyImage", "x\\ny"),
    ] {
        refused(annotation, value);
    }
    let pod = on_cluster(r#"annotations: {proxy.istio.io/config: '{"proxyMetadata": {"A": "$(reboot); `x`"}}'}"#, APP);
    assert_eq!(variable(container(&pod, PROXY_CONTAINER), "A"), Some("$(reboot); `x`"));
    let proxy = &container(&pod, PROXY_CONTAINER)["securityContext"];
    assert_eq!((&proxy["privileged"], &proxy["capabilities"]), (&json!(false), &json!({"drop": ["ALL"]})));
}

#[test]
fn volumes_that_annotations_ask_for_are_the_proxys() {
    let pod = on_cluster(
        r#"annotations: {sidecar.istio.io/userVolume: '{"certs": {"secret": {"secretName": "s"}}}',
            sidecar.istio.io/userVolumeMount: '{"certs": {"mountPath": "/etc/certs", "readOnly": true}}'}"#,
        APP,
    );
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({"name": "certs", "secret": {"secretName": "s"}})));
    let mounts = container(&pod, PROXY_CONTAINER)["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "certs", "mountPath": "/etc/certs", "readOnly": true})));
    assert_eq!(container(&pod, "app")["volumeMounts"], Value::Null);
}

#[test]
fn one_annotation_about_resources_replaces_all_defaults() {
    let resources = |metadata: &str| container(&injected(metadata, APP), PROXY_CONTAINER)["resources"].clone();
    let defaults = resources("");
    assert_eq!((defaults["requests"].as_object().unwrap().len(), &defaults["limits"]["memory"]), (2, &json!("1Gi")));
    assert_eq!(resources("annotations: {sidecar.istio.io/proxyCPU: 50m}"), json!({"requests": {"cpu": "50m"}}));
}

#[test]
fn a_native_proxy_comes_first_and_a_classic_one_last() {
    let spec = "initContainers: [{name: setup, image: s}], containers: [{name: app, image: app:1}]";
    let order = |pod: &Value| {
        let list = |field: &str| names(&pod["spec"][field]).collect::<Vec<_>>().join(" ");
        format!("{} | {}", list("initContainers"), list("containers"))
    };
    let native = on_cluster("", spec);
    assert_eq!(order(&native), "istio-init istio-proxy setup | app");
    let proxy = container(&native, PROXY_CONTAINER);
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(proxy["startupProbe"]["httpGet"], json!({"path": "/healthz/ready", "port": 15021}));
    let drain = &proxy["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(words(drain), ["lateen-proxy", "request", "POST", "/drain_connections?inboundonly"]);
    let classic = on_cluster("annotations: {sidecar.istio.io/nativeSidecar: 'false'}", spec);
    assert_eq!(order(&classic), "setup istio-init | app istio-proxy");
    assert_eq!(container(&classic, PROXY_CONTAINER)["lifecycle"], Value::Null);
    let held = on_cluster(
        "annotations: {sidecar.istio.io/nativeSidecar: 'false', proxy.istio.io/config: '{holdApplicationUntilProxyStarts: true}'}",
        spec,
    );
    assert_eq!(order(&held), "setup istio-init | istio-proxy app");
    assert_eq!(
        words(&container(&held, PROXY_CONTAINER)["lifecycle"]["postStart"]["exec"]["command"]),
        ["lateen-proxy", "wait"]
    );
}

#[test]
fn the_pods_own_word_on_our_containers_is_laid_over_the_templates() {
    let pod = on_cluster(
        "",
        "initContainers: [{name: istio-init, image: mine/init, args: [a]}],
         containers: [{name: app, image: app:1}, {name: istio-proxy, image: auto, tty: true, resources: {requests: {cpu: 9m}},
           securityContext: {runAsUser: 5}, lifecycle: {preStop: {sleep: {seconds: 1}}}}]",
    );
    assert_eq!(names(&pod["spec"]["containers"]).collect::<Vec<_>>(), ["app"], "it is where the template has it");
    let (proxy, init) = (container(&pod, PROXY_CONTAINER), container(&pod, INIT_CONTAINER));
    assert!(proxy["image"].as_str().unwrap().starts_with("lateen/proxy:"));
    assert_eq!(proxy["tty"], true);
    assert_eq!(proxy["resources"]["requests"], json!({"cpu": "9m", "memory": "128Mi"}));
    let context = &proxy["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsNonRoot"]), (&json!(5), &json!(true)));
    assert_eq!(proxy["lifecycle"], json!({"preStop": {"sleep": {"seconds": 1}}}));
    assert_eq!((&init["image"], &init["args"]), (&json!("mine/init"), &json!(["a"])));
}

#[test]
fn probes_are_asked_by_way_of_the_proxy() {
    let spec = "initContainers: [
          {name: helper, image: h, restartPolicy: Always, readinessProbe: {tcpSocket: {port: 7}}},
          {name: setup, image: s, startupProbe: {httpGet: {port: 1}}}],
        containers: [{name: app, image: a, ports: [{name: http, containerPort: 80}],
          livenessProbe: {httpGet: {port: http, path: /up, scheme: HTTPS}, periodSeconds: 3, timeoutSeconds: 2},
          readinessProbe: {grpc: {port: 90, service: shop}}, startupProbe: {exec: {command: [x]}},
          lifecycle: {preStop: {httpGet: {port: 91}}, postStart: {tcpSocket: {port: '93'}}}},
        {name: odd, image: o, livenessProbe: {httpGet: {port: nameless}},
          readinessProbe: {httpGet: {port: 1, host: example.org}}}]";
    let pod = on_cluster("", spec);
    let through = |path: &str| json!({"path": path, "port": 15020, "scheme": "HTTP"});
    let app = container(&pod, "app");
    assert_eq!(
        app["livenessProbe"],
        json!({"periodSeconds": 3, "timeoutSeconds": 2, "httpGet": through("/app-health/app/livez")})
    );
    assert_eq!(app["readinessProbe"], json!({"httpGet": through("/app-health/app/readyz")}));
    assert_eq!(app["startupProbe"], json!({"exec": {"command": ["x"]}}));
    assert_eq!(app["lifecycle"]["preStop"]["httpGet"], through("/app-lifecycle/app/prestopz"));
    assert_eq!(app["lifecycle"]["postStart"], json!({"httpGet": through("/app-lifecycle/app/poststartz")}));
    let helper = container(&pod, "helper");
    assert_eq!(helper["readinessProbe"]["httpGet"], through("/app-health/helper/readyz"));
    assert_eq!(container(&pod, "setup")["startupProbe"], json!({"httpGet": {"port": 1}}), "it runs by itself");
    assert_eq!(container(&pod, "odd")["livenessProbe"], json!({"httpGet": {"port": "nameless"}}));
    let told = variable(container(&pod, PROXY_CONTAINER), "ISTIO_KUBE_APP_PROBERS").unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(told).unwrap(),
        json!({
            "/app-health/app/livez": {"httpGet": {"port": 80, "path": "/up", "scheme": "HTTPS"}, "timeoutSeconds": 2},
            "/app-health/app/readyz": {"grpc": {"port": 90, "service": "shop"}, "timeoutSeconds": 1},
            "/app-lifecycle/app/prestopz": {"httpGet": {"port": 91}},
            "/app-lifecycle/app/poststartz": {"tcpSocket": {"port": 93}},
            "/app-health/helper/readyz": {"tcpSocket": {"port": 7}, "timeoutSeconds": 1},
        })
    );
    for annotation in ["sidecar.istio.io/rewriteAppHTTPProbers: 'false'", "status.sidecar.istio.io/port: '0'"] {
        let as_it_was = on_cluster(&format!("annotations: {{{annotation}}}"), spec);
        assert_eq!(container(&as_it_was, "app")["readinessProbe"], json!({"grpc": {"port": 90, "service": "shop"}}));
    }
}

#[test]
fn status_annotations_move_the_port_and_set_the_readiness_probe() {
    let pod = on_cluster(
        "annotations: {status.sidecar.istio.io/port: '123', readiness.status.sidecar.istio.io/initialDelaySeconds: '100',
          readiness.status.sidecar.istio.io/periodSeconds: '200', readiness.status.sidecar.istio.io/failureThreshold: '300'}",
        "containers: [{name: app, image: a, livenessProbe: {httpGet: {port: 80}}}]",
    );
    let proxy = container(&pod, PROXY_CONTAINER);
    let probe = &proxy["readinessProbe"];
    assert_eq!(
        [&probe["initialDelaySeconds"], &probe["periodSeconds"], &probe["failureThreshold"]],
        [&json!(100), &json!(200), &json!(300)]
    );
    assert_eq!(variable(proxy, "LATEEN_STATUS_PORT"), Some("123"));
    assert_eq!(container(&pod, "app")["livenessProbe"]["httpGet"]["port"], 123);
    let redirection = words(&container(&pod, INIT_CONTAINER)["args"]).join(" ");
    assert!(redirection.contains("-d 15090,15021,123 "), "{redirection}");
    let silent = on_cluster("annotations: {status.sidecar.istio.io/port: '0'}", APP);
    assert_eq!(container(&silent, PROXY_CONTAINER)["readinessProbe"], Value::Null);
}

#[test]
fn an_administrators_templates_and_selectors_are_in_force() {
    let config = InjectorConfig::from_yaml(
        "neverInjectSelector: [{matchLabels: {app: job}}]\nalwaysInjectSelector: [{matchLabels: {app: must}}]\n\
         injectedAnnotations: {a/b: c}\naliases: {both: [gateway, spire]}\ntemplates:\n  spire: |\n    spec:\n\
         \x20     containers: [{name: istio-proxy, env: [{name: X, value: y}]}]\n      volumes: [{name: v, emptyDir: {}}]\n",
    )
    .unwrap();
    let settings = Settings { config, ..Settings::on_kubernetes() };
    let pod_of = |metadata: &str| pod(metadata, APP);
    let left = |metadata: &str, settings: &Settings| run(&pod_of(metadata), ENABLED, &[], settings).unwrap().refused;
    assert_eq!(left("labels: {app: job}", &settings), Some(NotInjected::PolicyDisabled));
    assert_eq!(left("labels: {app: job, sidecar.istio.io/inject: 'true'}", &settings), None);
    let closed = Settings { config: InjectorConfig { enabled: false, ..settings.config.clone() }, ..settings.clone() };
    assert_eq!(left("", &closed), Some(NotInjected::PolicyDisabled));
    assert_eq!(left("labels: {app: must}", &closed), None);
    assert_eq!(left("labels: {app: must, sidecar.istio.io/inject: 'false'}", &closed), Some(NotInjected::PodDisabled));
    for templates in ["'gateway, spire'", "both", "gateway"] {
        let pod = injected_by(
            &settings,
            &format!("annotations: {{inject.istio.io/templates: {templates}}}"),
            "containers: [{name: istio-proxy, image: auto}]",
        );
        let proxy = container(&pod, PROXY_CONTAINER);
        assert_eq!(words(&proxy["args"]), ["router"]);
        assert_eq!(variable(proxy, "X"), (templates != "gateway").then_some("y"), "{templates}");
        assert_eq!(pod["metadata"]["annotations"]["a/b"], "c");
    }
    let empty =
        Settings { config: InjectorConfig { default_templates: Vec::new(), ..settings.config.clone() }, ..settings };
    let pod = pod("", "containers: [{name: istio-proxy, image: auto}]");
    let problems = run(&pod, ENABLED, &[], &empty).unwrap_err();
    assert!(problems[0].message.contains("leaves its image to a template"), "{}", problems[0].message);
}

#[test]
fn what_nobody_here_has_heard_of_stays() {
    let pod = on_cluster("", "containers: [{name: app, image: a, fieldOfTheFuture: 1}], another: {b: [2]}");
    assert_eq!(container(&pod, "app")["fieldOfTheFuture"], 1);
    assert_eq!(pod["spec"]["another"], json!({"b": [2]}));
}

#[test]
fn what_has_no_effect_is_said() {
    let pod = pod("annotations: {sidecar.istio.io/componentLogLevel: 'rbac:debug'}", APP);
    let warnings = run(&pod, ENABLED, &[], &Settings::on_kubernetes()).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(!warnings[0].is_error() && warnings[0].field.contains("componentLogLevel"));
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
    let decided = |metadata: &str, configs: &[&std::sync::Arc<Resource<ProxyConfig>>]| {
        let configs: Vec<&Resource<ProxyConfig>> = configs.iter().copied().chain(&others).map(|it| &**it).collect();
        let pod = pod(&format!("labels: {{app: web}}, {metadata}"), APP);
        let out = run(&pod, ENABLED, &configs, &Settings::default()).unwrap().pod;
        let proxy = container(&out, PROXY_CONTAINER);
        let told: Vec<&str> = ["A", "B", "C", "D", "E"].iter().filter_map(|name| variable(proxy, name)).collect();
        let domain = variable(proxy, "TRUST_DOMAIN").unwrap_or_default().to_owned();
        (words(&proxy["args"])[1..].join(" "), told.join(" "), domain)
    };
    let is = |args: &str, told: &str, domain: &str| (args.to_owned(), told.to_owned(), domain.to_owned());
    assert_eq!(decided("", &[]), is("", "", "cluster.local"));
    assert_eq!(decided("", &[&root]), is("--concurrency 1", "root root root", "cluster.local"));
    assert_eq!(decided("", &[&root, &namespace]), is("--concurrency 2", "root namespace root", "cluster.local"));
    assert_eq!(
        decided(annotation, &[&root, &namespace]),
        is("--concurrency 3", "root namespace pod pod true", "cluster.local")
    );
    assert_eq!(
        decided(annotation, &[&root, &namespace, &own]),
        is("--concurrency 4", "root namespace pod own true", "td")
    );
}

#[test]
fn an_annotation_for_the_proxy_that_cannot_be_read_lets_no_pod_in() {
    for (text, message) in [
        ("concurrency: many", "`concurrency: \"many\"` is no number of threads"),
        ("proxyMetadata: [A]", "`proxyMetadata` is no map of names to texts"),
        ("proxyMetadata: {A: [b]}", "`proxyMetadata.A` is no text"),
        (
            "holdApplicationUntilProxyStarts: perhaps",
            "`holdApplicationUntilProxyStarts: \"perhaps\"` is neither true nor false",
        ),
        ("statusPort: 70000", "`statusPort: 70000` is no port"),
        ("terminationDrainDuration: soon", "`terminationDrainDuration: \"soon\"` is no time"),
        ("discoveryAddress: here", "`discoveryAddress: \"here\"` is not of the form host:port"),
    ] {
        let pod = pod(&format!("annotations: {{proxy.istio.io/config: '{text}'}}"), APP);
        let refused = run(&pod, ENABLED, &[], &Settings::default()).unwrap_err();
        assert_eq!(refused[0].message, message);
        assert_eq!(refused[0].field, "metadata.annotations[proxy.istio.io/config]");
    }
}

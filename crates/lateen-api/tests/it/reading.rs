//! What is read is what was meant: types, defaults, positions, lists, JSON.

use lateen_api::networking::destination_rule::SimpleLb;
use lateen_api::scalar::{HeaderMatch, PortRef, StringMatch};
use lateen_api::{Kind, Object, ObjectKey, parse_documents, parse_json};

use crate::object;

#[test]
fn a_virtual_service_is_read_into_its_type() {
    let text = r#"
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
  namespace: bookinfo
spec:
  hosts: [reviews]
  http:
  - match:
    - uri: {prefix: /reviews}
      headers:
        end-user: {exact: jason}
        x-any: {}
    route:
    - destination: {host: reviews, subset: v2}
    timeout: 1.5s
  - route:
    - destination: {host: reviews, subset: v1, port: {number: 9080}}
      weight: 90
    - destination: {host: reviews, subset: v3}
      weight: 10
"#;
    let Object::VirtualService(service) = object(text) else { panic!("a VirtualService") };
    assert_eq!(service.api_version, "networking.istio.io/v1alpha3");
    assert_eq!((service.namespace(), service.name()), ("bookinfo", "reviews"));
    let first = &service.spec.http[0];
    assert_eq!(first.matches[0].uri, Some(StringMatch::Prefix("/reviews".into())));
    assert_eq!(first.matches[0].headers["end-user"], HeaderMatch(Some(StringMatch::Exact("jason".into()))));
    assert!(first.matches[0].headers["x-any"].is_presence());
    assert_eq!(first.timeout.map(|timeout| timeout.get().as_millis()), Some(1500));
    let second = &service.spec.http[1];
    assert_eq!(second.route.iter().map(|route| route.weight).collect::<Vec<_>>(), [90, 10]);
    assert_eq!(second.route[0].destination.port.map(|port| port.number), Some(9080));
    assert_eq!(service.origin.to_string(), "test.yaml:2");
    assert_eq!(service.position_of("spec.http[1].route[1].weight"), (22, 7));
    assert_eq!(service.position_of("spec.http[1].route[0].destination.port.number").0, 19);
    assert_eq!(service.position_of("spec.http[1].retries.attempts"), (18, 5), "the nearest field around a missing one");
    assert_eq!(service.position_of("nowhere"), (2, 1));
}

#[test]
fn closed_sets_and_absence_have_istios_defaults() {
    let Object::DestinationRule(rule) = object(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: r\n  trafficPolicy: {loadBalancer: {simple: LEAST_CONN}}\n",
    ) else {
        panic!("a DestinationRule")
    };
    let policy = rule.spec.traffic_policy.as_ref().expect("it is written");
    assert_eq!(policy.load_balancer.as_ref().and_then(|balancer| balancer.simple), Some(SimpleLb::LeastConn));
    assert_eq!(rule.namespace(), "default");
    let Object::Namespace(namespace) = object("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n") else {
        panic!("a Namespace")
    };
    assert_eq!(namespace.namespace(), "", "a Namespace is in none");
}

#[test]
fn values_may_be_left_empty_and_words_may_be_booleans() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  labels:\nspec:\n  publishNotReadyAddresses: yes\n  selector:\n  ports:\n  - {port: 80, targetPort: http, name: http}\n  - {port: 0x1F90, targetPort: 9090, name: \"8080\"}\n";
    let Object::Service(service) = object(text) else { panic!("a Service") };
    assert!(service.spec.publish_not_ready_addresses && service.spec.selector.is_empty());
    assert_eq!(service.spec.ports[0].target_port, Some(PortRef::Name("http".into())));
    assert_eq!((service.spec.ports[1].port, &service.spec.ports[1].target_port), (8080, &Some(PortRef::Number(9090))));
}

#[test]
fn lists_are_unpacked() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}\n- {apiVersion: v1, kind: LimitRange, metadata: {name: b}}\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: c}}\n";
    let parsed = parse_documents("list.yaml", text, "ns");
    let keys: Vec<String> = parsed.objects.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(keys, ["ServiceAccount ns/a", "ServiceAccount ns/c"]);
    assert_eq!(parsed.diagnostics.iter().map(|found| found.line).collect::<Vec<_>>(), [5]);
    assert_eq!(parse_documents("empty.yaml", "apiVersion: v1\nkind: List\nitems: []\n", "ns").objects, []);
}

#[test]
fn pods_keep_their_status_through_json() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","uid":"u"},"spec":{"containers":[{"name":"c","image":"i",
      "resources":{"limits":{"cpu":2,"memory":"1Gi"}},"ports":[{"containerPort":8080}]}],"imagePullPolicy":null},
      "status":{"phase":"Running","podIP":"10.244.0.7","newerField":{"x":1},
      "conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"c","ready":true,"restartCount":2}]}}"#;
    let parsed = parse_documents("pod.json", &text.replace(",\"imagePullPolicy\":null", ""), "default");
    assert_eq!(parsed.diagnostics, []);
    let Object::Pod(pod) = &parsed.objects[0] else { panic!("a Pod") };
    let status = pod.spec.status.as_ref().expect("it has one");
    assert!(status.is_ready());
    assert_eq!((status.phase.as_str(), status.pod_ip.as_str()), ("Running", "10.244.0.7"));
    let json = parsed.objects[0].to_json();
    assert_eq!(json["status"]["podIP"], "10.244.0.7");
    assert_eq!(json["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    let again = parse_json("memory", &json, "default").expect("what we write we read");
    assert!(again.same_content(&parsed.objects[0]));
    assert_eq!(again.origin().to_string(), "memory");
}

#[test]
fn a_status_outlives_reading_and_writing() {
    let text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [a.example]}\nstatus: {addresses: [{value: 240.240.0.1, host: a.example}]}\n";
    assert_eq!(object(text).to_json()["status"]["addresses"][0]["value"], "240.240.0.1");
}

#[test]
fn kinds_answer_to_all_their_names() {
    for (text, kind) in [
        ("vs", Kind::VirtualService),
        ("VirtualService", Kind::VirtualService),
        ("virtualservices", Kind::VirtualService),
        ("virtualservice", Kind::VirtualService),
        ("gateways.networking.istio.io", Kind::Gateway),
        ("po", Kind::Pod),
        ("deploy", Kind::Deployment),
        ("SVC", Kind::Service),
        ("pa", Kind::PeerAuthentication),
        ("gateway", Kind::Gateway),
        ("gateways.gateway.networking.k8s.io", Kind::KubernetesGateway),
        ("gtw", Kind::KubernetesGateway),
        ("httproutes", Kind::HTTPRoute),
    ] {
        assert_eq!(text.parse(), Ok(kind), "{text}");
    }
    assert!("gateways.example.com".parse::<Kind>().is_err());
    assert!("replicasets".parse::<Kind>().is_err());
    for kind in Kind::ALL {
        assert_eq!(kind.id().parse(), Ok(*kind));
        assert_eq!(format!("{}.{}", kind.plural(), kind.group()).trim_end_matches('.').parse(), Ok(*kind));
        for api_version in kind.api_versions() {
            assert_eq!(Kind::of(&api_version, kind.name()), Some(*kind), "{api_version}");
        }
        let key = ObjectKey::new(*kind, "ns", "name");
        let json = serde_json::to_string(&key).expect("a key is JSON");
        assert_eq!(serde_json::from_str::<ObjectKey>(&json).expect("and back"), key);
    }
}

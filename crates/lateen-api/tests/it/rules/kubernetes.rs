//! Service, Deployment, Pod, names.

use lateen_api::{Environment, validate_in};

use super::{broken, table, text};
use crate::{brief, object};

#[test]
fn services() {
    table(
        "svc",
        &[
            ("{ports: [{port: 80}], selector: {app: a}}", &[]),
            ("{clusterIP: None}", &[]),
            ("{type: ExternalName, externalName: a.example.com}", &[]),
            ("{selector: {app: a}}", &["error spec.ports: a Service needs at least one port"]),
            ("{type: ExternalName}", &["error spec.externalName: a Service of type ExternalName needs `externalName`"]),
            (
                "{ports: [{port: 80, name: a}, {port: 81}]}",
                &["error spec.ports[1].name: with several ports each needs a name"],
            ),
            (
                "{ports: [{port: 80, name: a}, {port: 81, name: a}]}",
                &["error spec.ports[1].name: the port name `a` is there a second time"],
            ),
            (
                "{ports: [{port: 80, name: a}, {port: 80, name: b}]}",
                &["error spec.ports[1].port: the port 80/TCP is there a second time"],
            ),
            ("{ports: [{port: 80, name: a}, {port: 80, name: b, protocol: UDP}]}", &[]),
            ("{ports: [{port: 0}]}", &["error spec.ports[0].port: port 0 is not in the range 1 to 65535"]),
            (
                "{ports: [{port: 80, protocol: HTTP}]}",
                &["error spec.ports[0].protocol: `HTTP` is none of TCP, UDP and SCTP"],
            ),
            ("{ports: [{port: 80}], clusterIP: a}", &["error spec.clusterIP: `a` is not an IP address"]),
        ],
    );
}

#[test]
fn deployments() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("{matchLabels: {app: a}}", "", &[]),
        ("{matchExpressions: [{key: app, operator: In, values: [a, b]}]}", "", &[]),
        ("{}", "", &["error spec.selector: `selector` is required and missing"]),
        (
            "{matchLabels: {app: b}}",
            "",
            &["error spec.selector: the selector does not select the template's own labels"],
        ),
        (
            "{matchLabels: {app: a}}",
            ", restartPolicy: Never",
            &["error spec.template.spec.restartPolicy: the pods of a Deployment are always restarted"],
        ),
    ];
    for (selector, pod, expected) in cases {
        let spec = format!(
            "{{selector: {selector}, template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: a, image: i}}]{pod}}}}}}}"
        );
        assert_eq!(broken("deploy", &spec), *expected, "{spec}");
    }
}

#[test]
fn pods() {
    table(
        "pod",
        &[
            ("{containers: []}", &["error spec.containers: a pod needs at least one container"]),
            (
                "{containers: [{name: a, image: i}, {name: a, image: i}]}",
                &["error spec.containers[1].name: the container `a` is there a second time"],
            ),
            ("{containers: [{image: i}]}", &["error spec.containers[0].name: `name` is required and missing"]),
            ("{containers: [{name: a}]}", &["error spec.containers[0].image: `image` is required and missing"]),
            (
                "{containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}]}]}",
                &["error spec.containers[0].volumeMounts[0].name: the pod has no volume `v`"],
            ),
            (
                "{containers: [{name: a, image: i, readinessProbe: {periodSeconds: 1}}]}",
                &[
                    "error spec.containers[0].readinessProbe: a probe needs exactly one of httpGet, tcpSocket, exec and grpc",
                ],
            ),
            (
                "{restartPolicy: Sometimes, containers: [{name: a, image: i}]}",
                &["error spec.restartPolicy: `Sometimes` is none of Always, OnFailure and Never"],
            ),
            (
                "{containers: [{name: a, image: i}], volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}]}",
                &["error spec.volumes[0].hostPath: a volume has one source only"],
            ),
            (
                "{containers: [{name: a, image: i}], volumes: [{name: v, emptyDir: {}}, {name: w, projected: {sources: []}}, {name: x, downwardAPI: {}}, {name: y, configMap: {name: istio-ca-root-cert}}]}",
                &[],
            ),
        ],
    );
}

#[test]
fn what_a_machine_lacks_is_refused_here_and_not_in_a_cluster() {
    let cases = [
        (
            "{containers: [{name: a, image: i}], volumes: [{name: v, configMap: {name: c}}]}",
            "error spec.volumes[0].configMap: volumes of type configMap are not supported on this machine",
        ),
        (
            "{containers: [{name: a, image: i}], volumes: [{name: v, secret: {secretName: s}}]}",
            "error spec.volumes[0].secret: volumes of type secret are not supported on this machine",
        ),
        (
            "{containers: [{name: a, image: i, env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}",
            "error spec.containers[0].env[0].valueFrom.secretKeyRef: Secrets are not supported on this machine",
        ),
        (
            "{containers: [{name: a, image: i, envFrom: [{configMapRef: {name: c}}]}]}",
            "error spec.containers[0].envFrom[0].configMapRef: ConfigMaps are not supported on this machine",
        ),
        (
            "{hostNetwork: true, containers: [{name: a, image: i}]}",
            "error spec.hostNetwork: `hostNetwork` is not supported on this machine",
        ),
    ];
    for (spec, expected) in cases {
        let pod = object(&text("pod", spec));
        let said: Vec<String> = validate_in(&pod, Environment::Local).iter().map(brief).collect();
        assert_eq!(said, [expected]);
        assert_eq!(validate_in(&pod, Environment::Cluster), []);
    }
    for optional in [
        "env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]",
        "envFrom: [{configMapRef: {name: c, optional: true}}]",
    ] {
        assert_eq!(broken("pod", &format!("{{containers: [{{name: a, image: i, {optional}}}]}}")), [""; 0]);
    }
}

#[test]
fn ordinary_fields_without_effect_are_accepted_and_unknown_ones_are_not() {
    let spec = "{containers: [{name: a, image: i, imagePullPolicy: Always, terminationMessagePath: /a, tty: true, resources: {limits: {cpu: 100m}}}], \
                affinity: {nodeAffinity: {}}, tolerations: [{key: a}], nodeSelector: {a: b}, priorityClassName: high, dnsPolicy: ClusterFirst, \
                schedulerName: s, imagePullSecrets: [{name: a}], topologySpreadConstraints: [], enableServiceLinks: false}";
    assert_eq!(broken("pod", spec), [""; 0]);
    let found = crate::findings(&text("pod", "{containers: [{name: a, image: i, imagePullPolice: Always}]}"));
    assert_eq!(
        found,
        [
            "4: error spec.containers[0].imagePullPolice: unknown field `imagePullPolice` at spec.containers[0], did you mean `imagePullPolicy`?"
        ]
    );
}

#[test]
fn names() {
    for (name, fine) in [("a", true), ("a-1", true), ("a.b", true), ("A", false), ("-a", false), ("a_b", false)] {
        let text = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  labels: {{app.kubernetes.io/name: x}}\n"
        );
        assert_eq!(lateen_api::validate(&object(&text)).is_empty(), fine, "{name}");
    }
    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a\n  labels: {'a b': x}\n";
    assert_eq!(crate::findings(text), ["5: error metadata.labels.a b: `a b` is not a label key"]);
}

#[test]
fn settings_of_a_proxys_annotation_are_honoured_or_told() {
    let said = |settings: &str| -> Vec<String> {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec:\n  selector: {{matchLabels: {{app: a}}}}\n  \
             template:\n    metadata:\n      labels: {{app: a}}\n      annotations: {{proxy.istio.io/config: '{settings}'}}\n    \
             spec: {{containers: [{{name: a, image: a}}]}}\n"
        );
        validate_in(&object(&text), Environment::Cluster).iter().map(brief).collect()
    };
    let field = "spec.template.metadata.annotations.proxy.istio.io/config";
    assert_eq!(said("{concurrency: 2, proxyMetadata: {A: b}}"), [""; 0]);
    assert_eq!(said("{gatewayTopology: {numTrustedProxies: 1}, proxyHeaders: {requestId: {disabled: true}}}"), [""; 0]);
    let found = said("{gatewayTopology: {numTrustedProxies: many}}");
    assert!(found.len() == 1 && found[0].contains("gatewayTopology.numTrustedProxies: expected"), "{found:?}");
    assert_eq!(
        said("{concurrency: 2, statsdUdpAddress: x, concurency: 1}"),
        [
            format!("warning {field}: `statsdUdpAddress` is not supported yet and has no effect"),
            format!("error {field}: there is no setting `concurency`"),
        ]
    );
}

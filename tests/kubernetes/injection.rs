//! Pods made through the API server, with the webhook in force.

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::control_plane::ControlPlane;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: shop/web:1
          ports: [{containerPort: 8080, name: http}]
          readinessProbe: {httpGet: {path: /ready, port: http}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: elsewhere}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: shop/web:1}]}
";

fn pod(namespace: &str, name: &str, metadata: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    for (field, value) in metadata.as_object().unwrap() {
        pod["metadata"][field] = value.clone();
    }
    pod
}

/// Creates a pod; what came of it, or what the API server says.
async fn create(cluster: &Cluster, pod: &Value) -> Result<Value, String> {
    let made = cluster.api(pod).create(&PostParams::default(), &serde_json::from_value(pod.clone()).unwrap()).await;
    made.map(|pod| serde_json::to_value(pod).unwrap()).map_err(|error| error.to_string())
}

fn init_containers(pod: &Value) -> Vec<&str> {
    let all = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    all.filter_map(|container| container["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_out_injected_by_the_live_webhook() {
    let Some(cluster) = Cluster::start().await else { return };
    let control_plane = ControlPlane::start(&cluster).await;
    cluster.apply(SHOP).await;

    // A Deployment's pods, made by Kubernetes' own controllers of its own template.
    let pods = eventually("both pods of the Deployment are there", async || {
        let pods = cluster.list("v1", "Pod", "shop").await;
        (pods.len() == 2).then_some(pods)
    })
    .await;
    for pod in &pods {
        assert_eq!(init_containers(pod), ["istio-init", "istio-proxy"], "{pod:#}");
        assert_eq!(pod["spec"]["initContainers"][1]["restartPolicy"], "Always");
        let probe = &pod["spec"]["containers"][0]["readinessProbe"]["httpGet"];
        assert_eq!((&probe["path"], &probe["port"]), (&json!("/app-health/web/readyz"), &json!(15020)));
        assert_eq!(pod["metadata"]["labels"]["service.istio.io/canonical-name"], "web");
        let proxy = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
        assert!(proxy.contains(&json!({"name": "ISTIO_META_WORKLOAD_NAME", "value": "web"})), "{proxy:#?}");
        let status: Value =
            serde_json::from_str(pod["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap()).unwrap();
        assert_eq!(status["initContainers"], json!(["istio-init", "istio-proxy"]));
    }

    // Nobody else's pods are touched, whatever they are like.
    let others = eventually("the other Deployment's pod", async || {
        let pods = cluster.list("v1", "Pod", "elsewhere").await;
        (!pods.is_empty()).then_some(pods)
    })
    .await;
    assert_eq!(init_containers(&others[0]), [""; 0]);
    let no = json!({"labels": {"sidecar.istio.io/inject": "false"}});
    assert_eq!(init_containers(&create(&cluster, &pod("shop", "says-no", &no)).await.unwrap()), [""; 0]);
    let yes = json!({"labels": {"sidecar.istio.io/inject": "true"}});
    let asked = create(&cluster, &pod("elsewhere", "says-yes", &yes)).await.unwrap();
    assert_eq!(init_containers(&asked), ["istio-init", "istio-proxy"]);

    // What cannot be honoured is refused, with the annotation and the reason.
    let bad = json!({"annotations": {"traffic.sidecar.istio.io/excludeInboundPorts": "*"}});
    let refused = create(&cluster, &pod("shop", "bad", &bad)).await.unwrap_err();
    let expected = "metadata.annotations[traffic.sidecar.istio.io/excludeInboundPorts]: `*` is not a port (1 to 65535)";
    assert!(refused.contains(expected), "{refused}");

    templates_of_the_config_map(&cluster).await;
    root_certificates(&cluster).await;
    replicas_have_one_authority(&cluster).await;

    // The control plane has gone: a pod that would need it is not made without a proxy, and others are made.
    drop(control_plane);
    let refused = create(&cluster, &pod("shop", "late", &json!({}))).await.unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    create(&cluster, &pod("elsewhere", "late", &json!({}))).await.unwrap();
}

/// An administrator's templates are in force as soon as the ConfigMap is, and a broken one changes nothing.
async fn templates_of_the_config_map(cluster: &Cluster) {
    let config = |text: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
            "data": {"config": text}})
    };
    cluster.apply_json(&config("templates: {extra: {spec: {terminationGracePeriodSeconds: 99}}}")).await;
    let wanted = json!({"annotations": {"inject.istio.io/templates": "sidecar,extra"}});
    let made = eventually("the template is known", async || {
        let tried = create(cluster, &pod("shop", "templated", &wanted)).await;
        match tried {
            Ok(made) => Some(made),
            Err(refused) => {
                assert!(refused.contains("there is no template `extra`"), "{refused}");
                None
            }
        }
    })
    .await;
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 99);
}

/// A second control plane takes the authority that the first has made, and leaves what that has written as it is.
async fn replicas_have_one_authority(cluster: &Cluster) {
    let roots = cluster.of("v1", "ConfigMap", "shop").get("istio-ca-root-cert").await.unwrap();
    let webhooks = cluster.of("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "");
    let before = webhooks.get("lateen-sidecar-injector").await.unwrap();
    let second = ControlPlane::start_alone(cluster).await;
    // Whatever it would write, it writes for a new namespace, too.
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: later}}").await;
    let maps = cluster.of("v1", "ConfigMap", "later");
    let later =
        eventually("the ConfigMap of the new namespace", async || maps.get_opt("istio-ca-root-cert").await.unwrap())
            .await;
    assert_eq!(later.data["data"], roots.data["data"]);
    let after = webhooks.get("lateen-sidecar-injector").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    drop(second);
}

/// Pods find the authority's certificates in a ConfigMap of every namespace, also where somebody takes it away.
async fn root_certificates(cluster: &Cluster) {
    for namespace in ["shop", "elsewhere", "default"] {
        let api = cluster.of("v1", "ConfigMap", namespace);
        let certificates = async || {
            let map = api.get_opt("istio-ca-root-cert").await.unwrap()?;
            map.data["data"]["root-cert.pem"].as_str().map(str::to_owned)
        };
        let pem = eventually("the ConfigMap is there", certificates).await;
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
        api.delete("istio-ca-root-cert", &kube::api::DeleteParams::default()).await.unwrap();
        assert_eq!(eventually("it is there again", certificates).await, pem);
    }
    assert!(cluster.of("v1", "ConfigMap", "kube-system").get_opt("istio-ca-root-cert").await.unwrap().is_none());
}

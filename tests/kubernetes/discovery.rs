//! What the control plane knows of what the API server has, also while that is gone.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::control_plane::ControlPlane;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: a, env: [{name: A, value: b}]}]}
";

/// One of Istio's kinds, as loosely as a cluster may have it.
fn definition(plural: &str, kind: &str) -> Value {
    let anything = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.networking.istio.io")},
        "spec": {"group": "networking.istio.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": anything}]}})
}

fn virtual_service(timeout: &str) -> Value {
    json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"hosts": ["web"], "http": [{"timeout": timeout, "route": [{"destination": {"host": "web"}}]}]}})
}

/// The names of the objects of a kind in the namespace.
async fn names(control_plane: &ControlPlane, kind: &str) -> Vec<String> {
    let all = control_plane.objects(kind).await;
    let ours = all.iter().filter(|object| object["metadata"]["namespace"] == "shop");
    ours.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn ready(cluster: &Cluster, pod: &str, address: &str) {
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let pods = cluster.of("v1", "Pod", "shop");
    pods.patch_status(pod, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_followed_and_an_outage_takes_nothing_away() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let control_plane = ControlPlane::start(&cluster).await;
    cluster.apply(SHOP).await;
    ready(&cluster, "web-1", "10.244.0.7").await;
    let pod = eventually("the pod and its address are known", async || {
        let pods = control_plane.objects("pods").await;
        pods.into_iter().find(|pod| pod["metadata"]["name"] == "web-1" && pod["status"]["podIP"] == "10.244.0.7")
    })
    .await;
    assert_eq!(pod["spec"]["containers"], json!([{"name": "web"}]), "of a pod only what is used is kept");
    assert_eq!(names(&control_plane, "services").await, ["web"]);
    assert_eq!(pod["metadata"]["managedFields"], Value::Null);

    istios_kinds(&cluster, &control_plane).await;

    // Without an API server everything is as it was; when it is back, what has changed is known.
    cluster.stop();
    eventually("the watches have noticed", async || control_plane.log().contains("begun anew").then_some(())).await;
    assert_eq!(names(&control_plane, "services").await, ["web"]);
    assert_eq!(names(&control_plane, "pods").await, ["web-1"]);
    assert_eq!(names(&control_plane, "virtualservices").await, ["web"]);
    cluster.start_again().await;
    cluster.apply(&SHOP.replace("name: web, namespace: shop", "name: other, namespace: shop")).await;
    cluster.of("v1", "Service", "shop").delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the new Service and not the old one", async || {
        (names(&control_plane, "services").await == ["other"]).then_some(())
    })
    .await;
    assert_eq!(names(&control_plane, "pods").await, ["web-1"]);

    // A pod that has ended is no endpoint, and one that is deleted is gone.
    let ended = json!({"status": {"phase": "Succeeded"}});
    let pods = cluster.of("v1", "Pod", "shop");
    pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(ended)).await.unwrap();
    eventually("the pod that has ended is left out", async || {
        names(&control_plane, "pods").await.is_empty().then_some(())
    })
    .await;
}

/// A kind that comes later, an object of it, and one that the cluster lets through and that is wrong.
async fn istios_kinds(cluster: &Cluster, control_plane: &ControlPlane) {
    cluster.apply_json(&definition("virtualservices", "VirtualService")).await;
    eventually("the API server serves the kind", async || {
        let all = cluster.of("networking.istio.io/v1beta1", "VirtualService", "shop");
        all.list(&kube::api::ListParams::default()).await.is_ok().then_some(())
    })
    .await;
    cluster.apply_json(&virtual_service("5s")).await;
    let timeout = async || {
        let all = control_plane.objects("virtualservices").await;
        Some(all.first()?["spec"]["http"][0]["timeout"].clone())
    };
    assert_eq!(eventually("the VirtualService is known", timeout).await, "5s");
    cluster.apply_json(&virtual_service("soon")).await;
    let told = eventually("what is wrong is told", async || {
        let status = control_plane.get("/api/v1/diagnostics").await;
        let found =
            status["diagnostics"].as_array()?.iter().find(|found| found["object"]["kind"] == "VirtualService")?;
        Some(found.clone())
    })
    .await;
    assert_eq!(told["field"], "spec.http[0].timeout", "{told:#}");
    assert_eq!(timeout().await.unwrap(), "5s", "the last good version is in force");
    let event = eventually("an Event says so", async || {
        let events = cluster.list("events.k8s.io/v1", "Event", "shop").await;
        events.into_iter().find(|event| event["regarding"]["kind"] == "VirtualService")
    })
    .await;
    assert_eq!((&event["reason"], &event["type"]), (&json!("Rejected"), &json!("Warning")));
    assert!(event["note"].as_str().unwrap().contains("spec.http[0].timeout"), "{event:#}");
    cluster.apply_json(&virtual_service("7s")).await;
    eventually("the next good version is in force", async || timeout().await.filter(|timeout| timeout == "7s")).await;
}

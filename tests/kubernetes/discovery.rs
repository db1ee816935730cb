//! What the control plane knows of what the API server has, also while that is gone.

use kube::api::{DeleteParams, Patch, PatchParams};
use lateen_api::Kind;
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

fn virtual_service(attempts: i32) -> Value {
    json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"hosts": ["web"], "http": [{"retries": {"attempts": attempts}, "route": [{"destination": {"host": "web"}}]}]}})
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
    cluster.define(Kind::VirtualService).await;
    cluster.apply_json(&virtual_service(5)).await;
    let attempts = async || {
        let all = control_plane.objects("virtualservices").await;
        Some(all.first()?["spec"]["http"][0]["retries"]["attempts"].clone())
    };
    assert_eq!(eventually("the VirtualService is known", attempts).await, 5);
    condition(cluster, "True", "InForce").await;
    cluster.apply_json(&virtual_service(-1)).await;
    let told = eventually("what is wrong is told", async || {
        let status = control_plane.get("/api/v1/diagnostics").await;
        let found =
            status["diagnostics"].as_array()?.iter().find(|found| found["object"]["kind"] == "VirtualService")?;
        Some(found.clone())
    })
    .await;
    assert_eq!(told["field"], "spec.http[0].retries.attempts", "{told:#}");
    assert_eq!(attempts().await.unwrap(), 5, "the last good version is in force");
    let status = condition(cluster, "False", "Rejected").await;
    assert!(
        status["conditions"][0]["message"].as_str().unwrap().contains("spec.http[0].retries.attempts"),
        "{status:#}"
    );
    assert_eq!(status["validationMessages"][0]["level"], "ERROR", "{status:#}");
    let event = eventually("an Event says so", async || {
        let events = cluster.list("events.k8s.io/v1", "Event", "shop").await;
        events.into_iter().find(|event| event["regarding"]["kind"] == "VirtualService")
    })
    .await;
    assert_eq!((&event["reason"], &event["type"]), (&json!("Rejected"), &json!("Warning")));
    assert!(event["note"].as_str().unwrap().contains("spec.http[0].retries.attempts"), "{event:#}");
    cluster.apply_json(&virtual_service(7)).await;
    eventually("the next good version is in force", async || attempts().await.filter(|attempts| attempts == 7)).await;
    let status = condition(cluster, "True", "InForce").await;
    assert_eq!(status["validationMessages"], json!([]), "{status:#}");
}

/// The VirtualService's status, once it says this of the object as it is.
async fn condition(cluster: &Cluster, word: &str, reason: &str) -> Value {
    let all = cluster.of("networking.istio.io/v1", "VirtualService", "shop");
    eventually("the status says so", async || {
        let found = serde_json::to_value(all.get("web").await.unwrap()).unwrap();
        let condition = &found["status"]["conditions"][0];
        let is_said = condition["status"] == word && condition["reason"] == reason;
        (is_said && condition["observedGeneration"] == found["metadata"]["generation"]).then(|| found["status"].clone())
    })
    .await
}

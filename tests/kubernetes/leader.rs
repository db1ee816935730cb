//! Several replicas: one of them speaks for all, and another does when that one is gone.

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::control_plane::ControlPlane;
use crate::rights;

fn gateway(name: &str) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}})
}

async fn holder(cluster: &Cluster) -> String {
    let leases = cluster.of("coordination.k8s.io/v1", "Lease", "istio-system");
    eventually("somebody leads", async || {
        let lease = leases.get_opt("lateend-leader").await.unwrap()?;
        lease.data["spec"]["holderIdentity"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    })
    .await
}

async fn said(cluster: &Cluster, name: &str) {
    let all = cluster.of("networking.istio.io/v1", "Gateway", "default");
    eventually("the status is written", async || {
        let found = all.get(name).await.unwrap().data;
        (found["status"]["conditions"][0]["status"] == "True").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_when_the_leader_is_gone() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.define(lateen_api::Kind::Gateway).await;
    let first = ControlPlane::start(&cluster).await;
    let leader = holder(&cluster).await;
    let second = ControlPlane::start_alone(&cluster).await;
    cluster.apply_json(&gateway("one")).await;
    said(&cluster, "one").await;
    assert_eq!(holder(&cluster).await, leader, "a second one takes nothing away");
    rights::are_as_small_as_they_are_said_to_be(&cluster).await;
    // Without a word, as a node that fails; the lease runs out.
    first.kill();
    cluster.apply_json(&gateway("two")).await;
    said(&cluster, "two").await;
    assert_ne!(holder(&cluster).await, leader);
    drop(second);
}

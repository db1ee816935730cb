//! `lateen install` and its kin, against a cluster whose pods somebody says to be running.

use std::process::{Output, Stdio};
use std::sync::Arc;

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, eventually};
use crate::control_plane::ControlPlane;

fn lateen(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(lateen_tests::program("lateen"));
    let (words, options) =
        arguments.split_at(arguments.iter().position(|it| it.starts_with('-')).unwrap_or(arguments.len()));
    command.args(words).arg("--kubeconfig").arg(cluster.kubeconfig()).args(options);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = lateen(cluster, arguments).output().await.unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

async fn succeed(cluster: &Cluster, arguments: &[&str]) -> String {
    let (succeeded, said) = run(cluster, arguments).await;
    assert!(succeeded, "lateen {arguments:?}: {said}");
    said
}

/// Says of pods what a kubelet would: that they run, unless their image is one that cannot be pulled.
async fn kubelet(cluster: Arc<Cluster>) {
    let pods = cluster.of("v1", "Pod", "istio-system");
    loop {
        // The API server may be busy; the next round comes soon.
        let all = pods.list(&ListParams::default()).await.map(|all| all.items).unwrap_or_default();
        for pod in all.iter().filter(|pod| pod.data["status"]["phase"] == "Pending") {
            let image = pod.data["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            let status = if image.ends_with(":broken") {
                json!({"containerStatuses": [{"name": "lateend", "image": image, "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "there is no such image"}}}]})
            } else {
                json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]})
            };
            let patch = Patch::Strategic(json!({"status": status}));
            let _ = pods.patch_status(pod.metadata.name.as_deref().unwrap(), &PatchParams::default(), &patch).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn there(cluster: &Cluster, api_version: &str, kind: &str, namespace: &str, name: &str) -> bool {
    cluster.of(api_version, kind, namespace).get_opt(name).await.unwrap().is_some()
}

/// The control plane beside the installation, as soon as its account is there.
async fn control_plane(cluster: &Cluster, account: &str, revision: &str) -> ControlPlane {
    eventually("the account is there", async || {
        there(cluster, "v1", "ServiceAccount", "istio-system", account).await.then_some(())
    })
    .await;
    ControlPlane::start_as(cluster, account, (&cluster.url, &cluster.ca), &["--revision", revision]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_is_installed_upgraded_and_taken_off_again() {
    let Some(cluster) = Cluster::start().await else { return };
    let cluster = Arc::new(cluster);
    let said = succeed(&cluster, &["install", "--dry-run"]).await;
    assert!(said.contains("Deployment istio-system/lateend would be created"), "{said}");
    assert!(!there(&cluster, "v1", "Namespace", "", "istio-system").await, "a dry run does nothing");
    let said = succeed(&cluster, &["check", "--pre"]).await;
    assert!(said.contains("ok you may install"), "{said}");
    let (succeeded, said) = run(&cluster, &["check"]).await;
    assert!(
        !succeeded && said.contains("xx a control plane is installed") && said.contains("lateen install"),
        "{said}"
    );
    let (succeeded, said) = run(&cluster, &["install", "--set", "replica=2"]).await;
    assert!(!succeeded && said.contains("`replica` is no setting; did you mean `replicas`?"), "{said}");

    let mut tasks = JoinSet::new();
    tasks.spawn(kubelet(Arc::clone(&cluster)));
    let installing = tokio::spawn(lateen(&cluster, &["install", "--profile", "minimal", "--timeout", "120"]).output());
    let lateend = control_plane(&cluster, "lateend", "default").await;
    let done = installing.await.unwrap().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.contains("revision default is installed"), "{said}");
    let said = succeed(&cluster, &["install", "--profile", "minimal"]).await;
    assert!(!said.contains(" created") && !said.contains(" changed") && said.contains(" unchanged"), "{said}");

    let said = succeed(&cluster, &["check"]).await;
    assert!(
        said.contains("ok revision default is healthy") && !said.contains("xx ") && !said.contains("!! "),
        "{said}"
    );
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: lost, labels: {istio.io/rev: none}}}").await;
    let (succeeded, said) = run(&cluster, &["check"]).await;
    assert!(!succeeded && said.contains("lost asks for none"), "{said}");

    upgrades(&cluster).await;
    revisions(&cluster).await;
    drop(lateend);
    succeed(&cluster, &["uninstall", "--purge"]).await;
    for (api_version, kind) in [
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ] {
        eventually("nothing is left", async || cluster.list(api_version, kind, "").await.is_empty().then_some(()))
            .await;
    }
    assert!(!there(&cluster, "rbac.authorization.k8s.io/v1", "ClusterRole", "", "lateend").await);
}

/// An upgrade keeps the settings, takes away what they do not ask for any more, and says why it does not succeed.
async fn upgrades(cluster: &Cluster) {
    let budget = async || there(cluster, "policy/v1", "PodDisruptionBudget", "istio-system", "lateend").await;
    succeed(cluster, &["upgrade", "--set", "podDisruptionBudget.enabled=true", "--set", "logAsJson=true"]).await;
    assert!(budget().await);
    let said = succeed(cluster, &["upgrade", "--set", "podDisruptionBudget.enabled=false"]).await;
    assert!(!budget().await && said.contains("PodDisruptionBudget istio-system/lateend removed"), "{said}");
    let deployments = cluster.of("apps/v1", "Deployment", "istio-system");
    let arguments =
        deployments.get("lateend").await.unwrap().data["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(arguments.contains("--log-json"), "what was set before stays set: {arguments}");

    let mut waiting = lateen(cluster, &["upgrade", "--set", "tag=broken"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("it goes on until it is healthy, or the time is up");
        if line.contains("container lateend: ImagePullBackOff: there is no such image") {
            break;
        }
    }
    waiting.kill().await.unwrap();
    succeed(cluster, &["upgrade", "--set", "tag=mended"]).await;
}

/// A second control plane beside the first, and a tag that stands for it.
async fn revisions(cluster: &Cluster) {
    succeed(cluster, &["install", "--profile", "minimal", "--revision", "canary", "--timeout", "0"]).await;
    let (succeeded, said) = run(cluster, &["tag", "set", "prod", "--revision", "none"]).await;
    assert!(!succeeded && said.contains("there is no control plane of revision none"), "{said}");
    let (succeeded, said) = run(cluster, &["tag", "set", "default", "--revision", "canary"]).await;
    assert!(!succeeded && said.contains("istio-injection=enabled"), "{said}");
    let canary = control_plane(cluster, "lateend-canary", "canary").await;
    // It ends when that control plane has put its certificates in, which the tag gives it the right to.
    succeed(cluster, &["tag", "set", "prod", "--revision", "canary"]).await;
    let said = succeed(cluster, &["tag", "list"]).await;
    assert!(said.contains("prod") && said.contains("canary"), "{said}");
    let (succeeded, said) = run(cluster, &["uninstall", "--revision", "canary"]).await;
    assert!(!succeeded && said.contains("lateen tag remove prod"), "{said}");
    succeed(cluster, &["tag", "remove", "prod"]).await;
    drop(canary);
    succeed(cluster, &["uninstall", "--revision", "canary"]).await;
    let left: Vec<Value> = cluster.list("apps/v1", "Deployment", "istio-system").await;
    let names: Vec<&str> = left.iter().filter_map(|it| it["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["lateend"], "the other revision stays");
}

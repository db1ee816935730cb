//! Waiting until what was applied works, and why it does not.

use std::time::{Duration, Instant};

use anyhow::bail;
use kube::Client;
use serde_json::Value;

use super::apply::{get, list, named, reference};
use crate::runtime::paint::{FAINT, PLAIN};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// How things stand.
pub(crate) enum Standing {
    Healthy,
    /// Not yet; why, in words.
    Waits(String),
}

/// Waits for something to be healthy, and tells what it waits for whenever that changes.
///
/// # Errors
/// The time is up; with what was waited for last.
pub(crate) async fn until_healthy(
    what: &str,
    deadline: Instant,
    mut look: impl AsyncFnMut() -> anyhow::Result<Standing>,
) -> anyhow::Result<()> {
    let mut told = String::new();
    loop {
        let Standing::Waits(why) = look().await? else { return Ok(()) };
        if why != told {
            anstream::eprintln!("{FAINT}waiting for {what}: {why}{PLAIN}");
            told = why;
        }
        if Instant::now() >= deadline {
            bail!("{what} is not healthy: {told}");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether an API server serves the kinds of these definitions.
pub(crate) async fn definitions(client: &Client, definitions: &[&Value]) -> anyhow::Result<Standing> {
    for definition in definitions {
        let found = get(client, definition).await?.unwrap_or_default();
        if condition(&found, "Established").is_none_or(|it| it["status"] != "True") {
            let refused = condition(&found, "NamesAccepted").filter(|it| it["status"] == "False");
            let why = refused.and_then(|it| it["message"].as_str()).unwrap_or("the API server does not serve it yet");
            return Ok(Standing::Waits(format!("{}: {why}", named(definition))));
        }
    }
    Ok(Standing::Healthy)
}

/// Whether all pods of a Deployment are the newest ones and available.
pub(crate) async fn deployment(client: &Client, object: &Value) -> anyhow::Result<Standing> {
    let Some(found) = get(client, object).await? else { return Ok(Standing::Waits("it is not there".to_owned())) };
    if is_rolled_out(&found) {
        return Ok(Standing::Healthy);
    }
    let labels = found["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let pods = list(client, ("v1", "Pod"), &labels.join(",")).await?;
    let namespace = &found["metadata"]["namespace"];
    let pods: Vec<&Value> = pods.iter().filter(|pod| pod["metadata"]["namespace"] == *namespace).collect();
    Ok(Standing::Waits(why(&found, &pods)))
}

/// As `kubectl rollout status` has it.
fn is_rolled_out(deployment: &Value) -> bool {
    let (status, wanted) = (&deployment["status"], deployment["spec"]["replicas"].as_i64().unwrap_or(1));
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    count("observedGeneration") >= deployment["metadata"]["generation"].as_i64().unwrap_or_default()
        && count("updatedReplicas") >= wanted
        && count("replicas") <= count("updatedReplicas")
        && count("availableReplicas") >= count("updatedReplicas")
}

/// Why not all of it is there, with the reason of the first pod that has one.
fn why(deployment: &Value, pods: &[&Value]) -> String {
    let (status, wanted) = (&deployment["status"], deployment["spec"]["replicas"].as_i64().unwrap_or(1));
    let ready = status["availableReplicas"].as_i64().unwrap_or_default();
    let mut told = format!("{ready} of {wanted} replicas are available");
    let failure = condition(deployment, "ReplicaFailure").filter(|it| it["status"] == "True");
    let reason = failure
        .and_then(|it| it["message"].as_str().map(str::to_owned))
        .or_else(|| pods.iter().find_map(|pod| trouble(pod)));
    if let Some(reason) = reason {
        told = format!("{told}; {reason}");
    }
    told
}

/// What keeps a pod from being ready, if something does.
fn trouble(pod: &Value) -> Option<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let unscheduled = condition(pod, "PodScheduled").filter(|it| it["status"] == "False");
    if let Some(message) = unscheduled.and_then(|it| it["message"].as_str()) {
        return Some(format!("pod {name} has no node: {message}"));
    }
    let status = &pod["status"];
    let containers = ["initContainerStatuses", "containerStatuses"];
    let mut containers = containers.iter().flat_map(|list| status[*list].as_array().into_iter().flatten());
    containers.find_map(|container| {
        let waiting = &container["state"]["waiting"];
        let reason = waiting["reason"].as_str().filter(|it| !["ContainerCreating", "PodInitializing"].contains(it))?;
        let message = waiting["message"].as_str().unwrap_or_default();
        let ended = &container["lastState"]["terminated"];
        let code = ended["exitCode"].as_i64().map(|code| format!(", it ended with {code}")).unwrap_or_default();
        let container = container["name"].as_str().unwrap_or_default();
        Some(format!("pod {name}, container {container}: {reason}{code}: {message}"))
    })
}

/// Whether lateend has put its certificates into the webhooks: from then on it is asked.
pub(crate) async fn webhooks(client: &Client, configuration: &Value) -> anyhow::Result<Standing> {
    let found = get(client, configuration).await?.unwrap_or_default();
    let mut webhooks = found["webhooks"].as_array().into_iter().flatten();
    if webhooks.all(|webhook| webhook["clientConfig"]["caBundle"].is_string()) {
        return Ok(Standing::Healthy);
    }
    Ok(Standing::Waits("lateend has not put its certificates in yet".to_owned()))
}

/// Whether an API server is there, and new enough.
///
/// # Errors
/// It is not, with what is needed.
pub(crate) async fn version(client: &Client) -> anyhow::Result<()> {
    /// The first with native sidecars, and with rules in CEL for custom kinds.
    const OLDEST: (u32, u32) = (1, 29);
    let found = client.apiserver_version().await?;
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().unwrap_or_default();
    if (number(&found.major), number(&found.minor)) < OLDEST {
        bail!("the cluster is Kubernetes {}; {}.{} or newer is needed", found.git_version, OLDEST.0, OLDEST.1);
    }
    Ok(())
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What names a control plane's Deployment.
pub(crate) fn control_plane(revision: &str) -> Value {
    let name = lateen_control::manifest::name(revision);
    reference("apps/v1", "Deployment", Some(lateen_control::manifest::NAMESPACE), &name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_healthy_when_all_of_its_newest_pods_are_available() {
        let deployment = |observed: u32, updated: u32, replicas: u32, available: u32| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": observed,
                "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available}})
        };
        for (told, healthy) in [
            (deployment(2, 2, 2, 2), true),
            (deployment(1, 2, 2, 2), false),
            (deployment(2, 1, 2, 2), false),
            (deployment(2, 2, 3, 3), false),
            (deployment(2, 2, 2, 1), false),
        ] {
            assert_eq!(is_rolled_out(&told), healthy, "{told}");
        }
    }

    #[test]
    fn what_keeps_it_from_being_healthy_is_told() {
        let deployment = json!({"spec": {"replicas": 2}, "status": {"availableReplicas": 1}});
        let pulling = json!({"metadata": {"name": "a-1"}, "status": {"containerStatuses": [{"name": "lateend",
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}});
        assert_eq!(
            why(&deployment, &[&pulling]),
            "1 of 2 replicas are available; pod a-1, container lateend: ImagePullBackOff: no such image"
        );
        let alone = json!({"metadata": {"name": "a-2"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/1 nodes are available"}]}});
        assert!(why(&deployment, &[&alone]).ends_with("; pod a-2 has no node: 0/1 nodes are available"));
        let refused = json!({"spec": {"replicas": 1}, "status": {"conditions": [{"type": "ReplicaFailure", "status": "True",
            "message": "exceeded quota"}]}});
        assert_eq!(why(&refused, &[]), "0 of 1 replicas are available; exceeded quota");
    }
}

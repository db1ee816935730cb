//! Deployments: so many pods of the newest template, new ones ready before old ones end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Kind;
use lateen_api::kubernetes::Deployment;
use tokio::sync::watch;

use super::cluster::{Cluster, Name, Stored};
use super::millis_since;
use super::registry::{NewPod, PodHandle, PodKey};
use super::{Node, diagnostics};
use crate::runtime::messages::Event;
use crate::runtime::pod;

/// Letters and digits that Kubernetes makes names from: no vowels, so no words.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Starts making pods what Deployments say.
pub(super) fn start(node: &Arc<Node>, mut cluster: watch::Receiver<Arc<Cluster>>) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut changes = node.pods.changes();
        let mut told = BTreeSet::new();
        let mut all_ready_told = false;
        loop {
            let now = Arc::clone(&cluster.borrow_and_update());
            changes.mark_unchanged();
            if now.synced {
                reconcile(&node, &now);
                tell_who_is_ready(&node, &mut told);
                if !all_ready_told {
                    all_ready_told = tell_when_all_are_ready(&node, &now);
                }
            }
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
}

fn reconcile(node: &Arc<Node>, cluster: &Cluster) {
    let mut pods: BTreeMap<Name, Vec<Arc<PodHandle>>> = BTreeMap::new();
    for pod in node.pods.all() {
        if !pod.is_terminating() {
            pods.entry(pod.deployment.clone()).or_default().push(pod);
        }
    }
    for (name, deployment) in &cluster.deployments {
        let step = plan(deployment, &pods.remove(name).unwrap_or_default());
        for pod in step.end {
            pod.stop(None);
        }
        for _ in 0..step.create {
            create(node, deployment);
        }
    }
    for orphan in pods.into_values().flatten() {
        orphan.stop(None);
    }
}

/// What to do next for one Deployment.
#[derive(Debug)]
struct Step {
    create: usize,
    end: Vec<Arc<PodHandle>>,
}

/// Kubernetes' rolling update with its defaults: a quarter more pods than asked for (rounded up) may exist meanwhile, and
/// a quarter (rounded down) may be missing.
fn plan(deployment: &Stored<Deployment>, pods: &[Arc<PodHandle>]) -> Step {
    let replicas = deployment.spec.replicas.unwrap_or(1) as usize;
    if deployment.spec.paused == Some(true) && !pods.is_empty() {
        return Step { create: 0, end: Vec::new() };
    }
    let wanted = fingerprint(deployment);
    let (new, old): (Vec<_>, Vec<_>) = pods.iter().cloned().partition(|pod| pod.template == wanted);
    if old.is_empty() {
        let create = replicas.saturating_sub(new.len());
        return Step { create, end: surplus(new, replicas) };
    }
    let (surge, unavailable) = (replicas.div_ceil(4), replicas / 4);
    let room = (replicas + surge).saturating_sub(pods.len());
    let create = replicas.saturating_sub(new.len()).min(room);
    let mut ready = pods.iter().filter(|pod| pod.is_ready()).count();
    let mut end = surplus(new, replicas);
    // Old pods that do not work are no loss.
    let (working, broken): (Vec<_>, Vec<_>) = old.into_iter().partition(|pod| pod.is_ready());
    end.extend(broken);
    for pod in working {
        if ready > replicas.saturating_sub(unavailable) {
            ready -= 1;
            end.push(pod);
        }
    }
    Step { create, end }
}

/// Those beyond `replicas`: first the ones that are not ready, then the youngest.
fn surplus(mut pods: Vec<Arc<PodHandle>>, replicas: usize) -> Vec<Arc<PodHandle>> {
    pods.sort_by_key(|pod| (!pod.is_ready(), pod.started));
    pods.split_off(pods.len().min(replicas))
}

fn create(node: &Arc<Node>, deployment: &Arc<Stored<Deployment>>) {
    let template = fingerprint(deployment);
    let meta = &deployment.metadata;
    let mut labels = deployment.spec.template.metadata.labels.clone();
    labels.insert("pod-template-hash".to_owned(), template.clone());
    let name = format!("{}-{template}-{}", meta.name, letters(uuid::Uuid::new_v4().as_u128(), 5));
    let new = NewPod {
        key: PodKey { namespace: meta.namespace.clone(), name },
        deployment: (meta.namespace.clone(), meta.name.clone()),
        template,
        labels,
    };
    if let Some(handle) = node.pods.add(new) {
        tokio::spawn(pod::run(Arc::clone(node), handle, Arc::clone(deployment)));
    }
}

/// A short name of a template: pods made from another have another.
fn fingerprint(deployment: &Stored<Deployment>) -> String {
    let text = serde_json::to_string(&deployment.spec.template).unwrap_or_default();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    letters(hash.into(), 10)
}

fn letters(mut number: u128, count: usize) -> String {
    let base = NAME_LETTERS.len() as u128;
    let mut text = String::with_capacity(count);
    for _ in 0..count {
        text.push(char::from(NAME_LETTERS[(number % base) as usize]));
        number /= base;
    }
    text
}

/// Tells of each pod the first time that it is ready.
fn tell_who_is_ready(node: &Node, told: &mut BTreeSet<String>) {
    let pods = node.pods.all();
    told.retain(|uid| pods.iter().any(|pod| pod.uid == *uid));
    for pod in pods.iter().filter(|pod| pod.is_ready()) {
        if told.insert(pod.uid.clone()) {
            node.tell(Event::PodReady {
                namespace: pod.key.namespace.clone(),
                pod: pod.key.name.clone(),
                injected: pod.live().injected,
                millis: millis_since(pod.started),
            });
        }
    }
}

/// Tells once that everything asked for at the start is ready; returns whether it has.
fn tell_when_all_are_ready(node: &Arc<Node>, cluster: &Cluster) -> bool {
    let pods = node.pods.all();
    let complete = cluster.deployments.iter().all(|(name, deployment)| {
        let ready = pods.iter().filter(|pod| pod.deployment == *name && pod.is_ready()).count();
        ready >= deployment.spec.replicas.unwrap_or(1) as usize
    });
    if complete {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            known_to_proxies(&node).await;
            node.tell(Event::AllReady { pods: pods.len(), millis: millis_since(node.started) });
        });
    }
    complete
}

/// How long the news of the last pod may take to reach all proxies before the mesh is called ready without.
const SETTLING: Duration = Duration::from_secs(5);

/// Waits until the control plane knows every pod as ready, and every proxy runs what follows from it: a gateway that has not
/// heard of a pod would answer that there is none.
async fn known_to_proxies(node: &Node) {
    let ready: BTreeSet<String> =
        node.pods.all().iter().filter(|pod| pod.is_ready()).map(|pod| pod.key.name.clone()).collect();
    let settled = async {
        loop {
            // A control plane that does not answer is told of elsewhere.
            let Ok(known) = node.api.objects(Kind::Pod, None, None).await else { return };
            let known: BTreeSet<&str> = known.iter().filter(|pod| says_ready(pod)).filter_map(name_of).collect();
            if ready.iter().all(|name| known.contains(name.as_str())) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = node.api.wait_for_newest(SETTLING).await;
        diagnostics::all_told(node).await;
    };
    let _ = tokio::time::timeout(SETTLING, settled).await;
}

fn name_of(pod: &serde_json::Value) -> Option<&str> {
    pod["metadata"]["name"].as_str()
}

fn says_ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;
    use crate::runtime::pod::live::Live;

    fn deployment(replicas: u32, image: &str) -> Stored<Deployment> {
        let mut spec = Deployment { replicas: Some(replicas), ..Deployment::default() };
        spec.template.spec.containers =
            vec![lateen_api::kubernetes::Container { image: image.to_owned(), ..Default::default() }];
        Stored { metadata: lateen_api::ObjectMeta::named("default", "web"), spec }
    }

    fn pods(registry: &Registry, template: &str, count: usize, ready: bool) -> Vec<Arc<PodHandle>> {
        let made = (0..count).map(|_| {
            let name = letters(uuid::Uuid::new_v4().as_u128(), 12);
            let key = PodKey { namespace: "default".to_owned(), name };
            let deployment = ("default".to_owned(), "web".to_owned());
            let labels = lateen_api::meta::StringMap::new();
            let pod = registry.add(NewPod { key, deployment, template: template.to_owned(), labels }).unwrap();
            pod.update(|live| *live = Live::for_test(ready));
            pod
        });
        made.collect()
    }

    #[test]
    fn a_new_deployment_gets_all_its_pods_at_once() {
        let step = plan(&deployment(3, "a"), &[]);
        assert_eq!((step.create, step.end.len()), (3, 0));
    }

    #[test]
    fn a_new_template_replaces_pods_one_ready_pod_at_a_time() {
        let registry = Registry::new();
        let wanted = deployment(1, "b");
        let mut all = pods(&registry, &fingerprint(&deployment(1, "a")), 1, true);
        let first = plan(&wanted, &all);
        assert_eq!((first.create, first.end.len()), (1, 0), "the new one comes first");
        all.extend(pods(&registry, &fingerprint(&wanted), 1, false));
        let waiting = plan(&wanted, &all);
        assert_eq!((waiting.create, waiting.end.len()), (0, 0), "the old one stays until the new one is ready");
        all[1].update(|live| *live = Live::for_test(true));
        let last = plan(&wanted, &all);
        assert_eq!((last.create, last.end.len()), (0, 1));
        assert_eq!(last.end[0].key, all[0].key);
    }

    #[test]
    fn fewer_replicas_end_those_that_are_not_ready_first() {
        let registry = Registry::new();
        let wanted = deployment(1, "a");
        let mut all = pods(&registry, &fingerprint(&wanted), 1, false);
        all.extend(pods(&registry, &fingerprint(&wanted), 1, true));
        let step = plan(&wanted, &all);
        assert_eq!(step.end.len(), 1);
        assert_eq!(step.end[0].key, all[0].key);
    }

    #[test]
    fn broken_pods_of_an_old_template_are_not_waited_for() {
        let registry = Registry::new();
        let all = pods(&registry, "old", 1, false);
        assert_eq!(plan(&deployment(1, "a"), &all).end.len(), 1);
    }
}

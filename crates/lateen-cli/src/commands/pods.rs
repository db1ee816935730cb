//! The pods of the mesh on this machine, as the node reports them.

use std::fmt;
use std::fs;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use lateen_api::kubernetes::{Pod, PodStatus};
use lateen_api::selector::LabelSelector;
use lateen_api::similar::did_you_mean;
use lateen_api::{Kind, Object, Resource, parse_documents};

use crate::runtime::state_dir::StateDir;

/// A Pod object.
pub(super) type ThePod = Resource<Pod>;

/// All pods, by namespace and name.
pub(super) fn all(state: &StateDir) -> anyhow::Result<Vec<ThePod>> {
    let mut pods = Vec::new();
    let folder = state.pods();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|suffix| suffix != "yaml") {
            continue;
        }
        // A pod that ended meanwhile.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for object in parse_documents(&path.display().to_string(), &text, "default").objects {
            if let Object::Pod(pod) = object {
                pods.push(pod.as_ref().clone());
            }
        }
    }
    pods.sort_by(|one, other| (one.namespace(), one.name()).cmp(&(other.namespace(), other.name())));
    Ok(pods)
}

/// The pod of a name, or the only one whose name starts so; for `deploy/NAME` a ready pod of that Deployment.
pub(super) fn find(state: &StateDir, namespace: &str, name: &str) -> anyhow::Result<ThePod> {
    let all = all(state)?;
    let (kind, name) = name.split_once('/').unwrap_or(("pod", name));
    if kind.parse() == Ok(Kind::Deployment) {
        let deployment = name;
        let mut its: Vec<_> =
            all.iter().filter(|pod| pod.namespace() == namespace && owner(pod) == Some(deployment)).collect();
        its.sort_by_key(|pod| !pod.spec.status.as_ref().is_some_and(PodStatus::is_ready));
        let Some(first) = its.first() else {
            let here = all.iter().filter(|pod| pod.namespace() == namespace);
            let known: Vec<&str> = here.filter_map(owner).collect();
            let hint = match did_you_mean(deployment, &known)
                .or_else(|| known.iter().copied().find(|it| it.starts_with(deployment)))
            {
                Some(meant) => format!(", did you mean `{meant}`?"),
                None => String::new(),
            };
            bail!("deployment {deployment} has no pod in namespace {namespace}{hint}");
        };
        return Ok((*first).clone());
    }
    if kind.parse() != Ok(Kind::Pod) {
        bail!("`{kind}/{name}`: a pod is named by its own name, pod/NAME, or deploy/NAME");
    }
    let mut here: Vec<_> = all.iter().filter(|pod| pod.namespace() == namespace).collect();
    if let Some(exact) = here.iter().find(|pod| pod.name() == name) {
        return Ok((*exact).clone());
    }
    here.retain(|pod| pod.name().starts_with(name));
    match here.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let elsewhere = all.iter().find(|pod| pod.name().starts_with(name));
            let deployments: Vec<&str> =
                all.iter().filter(|pod| pod.namespace() == namespace).filter_map(owner).collect();
            let hint = match (elsewhere, did_you_mean(name, &deployments)) {
                (Some(pod), _) => format!("; there is one in -n {}", pod.namespace()),
                (None, Some(meant)) => format!(", did you mean `{meant}`?"),
                (None, None) => "; `lateen get pods -A` lists all".to_owned(),
            };
            bail!("there is no pod {name} in namespace {namespace}{hint}")
        }
        several => {
            let names: Vec<&str> = several.iter().map(|pod| pod.name()).collect();
            bail!("several pods start with {name}: {}", names.join(", "))
        }
    }
}

/// The Deployment behind a pod: its ReplicaSet's name without the template's fingerprint.
fn owner(pod: &ThePod) -> Option<&str> {
    let replica_set = pod.metadata.owner_references.iter().find(|owner| owner.kind == "ReplicaSet")?;
    replica_set.name.rsplit_once('-').map(|(deployment, _)| deployment)
}

/// The container asked for, else the first that is no proxy.
pub(super) fn container(pod: &ThePod, wanted: Option<&str>) -> anyhow::Result<String> {
    let spec = &pod.spec.spec;
    let mut all = spec.containers.iter().chain(&spec.init_containers);
    match wanted {
        Some(name) => {
            if all.any(|container| container.name == name) {
                return Ok(name.to_owned());
            }
            let names: Vec<&str> =
                spec.containers.iter().chain(&spec.init_containers).map(|it| it.name.as_str()).collect();
            bail!("pod {} has no container {name}; it has {}", pod.name(), names.join(", "))
        }
        None => {
            let app = spec.containers.iter().find(|container| container.name != "istio-proxy");
            let first = app.or_else(|| spec.containers.first()).context("the pod has no container")?;
            Ok(first.name.clone())
        }
    }
}

/// Pods with these labels.
pub(super) fn selected(state: &StateDir, namespace: &str, selector: &LabelSelector) -> anyhow::Result<Vec<ThePod>> {
    let mut pods = all(state)?;
    pods.retain(|pod| pod.namespace() == namespace && selector.matches(&pod.metadata.labels));
    Ok(pods)
}

/// `2/2`: how many of its containers are ready.
pub(super) fn ready(pod: &ThePod) -> String {
    let statuses = pod.spec.status.iter().flat_map(|status| &status.container_statuses);
    format!("{}/{}", statuses.filter(|container| container.ready).count(), pod.spec.spec.containers.len())
}

pub(super) fn restarts(pod: &ThePod) -> String {
    let status = pod.spec.status.clone().unwrap_or_default();
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.map(|container| container.restart_count).sum::<u32>().to_string()
}

/// As kubectl's STATUS column: the reason why it does not run, if there is one.
pub(super) fn state(pod: &ThePod) -> String {
    let status = pod.spec.status.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let waiting = all.filter_map(|container| container.state.as_ref()?["waiting"]["reason"].as_str());
    let reason = waiting.filter(|reason| *reason != "PodInitializing").map(str::to_owned).next();
    reason.or(status.reason).unwrap_or(status.phase)
}

pub(super) fn is_ready(pod: &ThePod) -> bool {
    pod.spec.status.as_ref().is_some_and(PodStatus::is_ready)
}

/// How long something has been there, as kubectl writes it: `45s`, `12m`, `5h`, `3d`.
pub(super) struct Age(Option<i64>);

impl Age {
    /// Since a time in RFC 3339.
    pub(super) fn since(time: &str) -> Self {
        Self(time.parse::<Timestamp>().ok().map(|since| Timestamp::now().as_second() - since.as_second()))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("<unknown>"),
            Some(seconds) if seconds < 120 => write!(f, "{}s", seconds.max(0)),
            Some(seconds) if seconds < 2 * 3600 => write!(f, "{}m", seconds / 60),
            Some(seconds) if seconds < 48 * 3600 => write!(f, "{}h", seconds / 3600),
            Some(seconds) => write!(f, "{}d", seconds / 86400),
        }
    }
}

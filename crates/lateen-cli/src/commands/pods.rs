//! The pods of the mesh on this machine, as the node reports them.

use std::fs;

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::{Pod, PodStatus};
use lateen_api::{Object, Resource, parse_documents};

use crate::runtime::state_dir::StateDir;

/// All pods, by namespace and name.
pub(super) fn all(state: &StateDir) -> anyhow::Result<Vec<Resource<Pod>>> {
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
pub(super) fn find(state: &StateDir, namespace: &str, name: &str) -> anyhow::Result<Resource<Pod>> {
    let all = all(state)?;
    let deployment = ["deploy/", "deployment/"].iter().find_map(|prefix| name.strip_prefix(prefix));
    if let Some(deployment) = deployment {
        let mut its: Vec<_> =
            all.iter().filter(|pod| pod.namespace() == namespace && owner(pod) == Some(deployment)).collect();
        its.sort_by_key(|pod| !pod.spec.status.as_ref().is_some_and(PodStatus::is_ready));
        let first =
            its.first().with_context(|| format!("deployment {deployment} has no pod in namespace {namespace}"))?;
        return Ok((*first).clone());
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
            let hint = elsewhere.map(|pod| format!("; there is one in -n {}", pod.namespace())).unwrap_or_default();
            bail!("there is no pod {name} in namespace {namespace}{hint}")
        }
        several => {
            let names: Vec<&str> = several.iter().map(|pod| pod.name()).collect();
            bail!("several pods start with {name}: {}", names.join(", "))
        }
    }
}

/// The Deployment behind a pod: its ReplicaSet's name without the template's fingerprint.
fn owner(pod: &Resource<Pod>) -> Option<&str> {
    let replica_set = pod.metadata.owner_references.iter().find(|owner| owner.kind == "ReplicaSet")?;
    replica_set.name.rsplit_once('-').map(|(deployment, _)| deployment)
}

/// The container asked for, else the first that is no proxy.
pub(super) fn container(pod: &Resource<Pod>, wanted: Option<&str>) -> anyhow::Result<String> {
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

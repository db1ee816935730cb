//! From a container of the (injected) manifest to what is run for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::Container;
use lateen_api::kubernetes::probe::{LifecycleHandler, Probe};

use super::environment::{self, Fields, expand};
use super::live::ContainerLive;
use super::probe::{Check, Question, declared};
use super::volumes::Volumes;
use crate::runtime::images::LocalCommand;
use crate::runtime::messages::{ContainerPlan, Mount};
use crate::runtime::node::Node;
use crate::runtime::node::network::NODE_ADDRESS;

/// Our own images, whatever their version.
const PROXY_IMAGE: &str = "lateen/proxy";
const INIT_IMAGE: &str = "lateen/init";
/// The mark that `lateen-intercept` exempts by default.
const PROXY_MARK: &str = "1337";
/// Istio's readiness port and path.
const PROXY_READINESS: (u16, &str) = (15021, "/healthz/ready");

/// A container ready to be run any number of times.
#[derive(Debug, Clone)]
pub(super) struct ContainerSpec {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) is_init: bool,
    pub(super) is_sidecar: bool,
    pub(super) is_proxy: bool,
    pub(super) plan: ContainerPlan,
    pub(super) log: PathBuf,
    pub(super) startup: Option<Check>,
    pub(super) liveness: Option<Check>,
    pub(super) readiness: Readiness,
    pub(super) post_start: Option<Hook>,
    pub(super) pre_stop: Option<Hook>,
}

/// What makes a container ready.
#[derive(Debug, Clone)]
pub(super) enum Readiness {
    /// A probe succeeds, and it is not any more when it fails.
    Probe(Check),
    /// No probe: it listens on the ports it declares, or some time has passed. Kubernetes would not even look; so a
    /// mesh that says "ready" means it a little more often.
    Listening(Check),
    /// It runs, and has not ended at once.
    Running,
}

/// Something to do after a start or before an end.
#[derive(Debug, Clone)]
pub(super) enum Hook {
    Ask(Question),
    Sleep(Duration),
}

impl ContainerSpec {
    /// Its state before anything has happened.
    pub(super) fn live(&self) -> ContainerLive {
        ContainerLive {
            name: self.name.clone(),
            image: self.image.clone(),
            is_proxy: self.is_proxy,
            is_sidecar: self.is_sidecar,
            environment: self.plan.environment.clone(),
            workdir: self.plan.workdir.clone(),
            ..ContainerLive::default()
        }
    }
}

/// Makes the plan of one container; `folder` is the pod's own.
pub(super) fn plan(
    node: &Node,
    folder: &Path,
    files: &[Mount],
    volumes: &Volumes,
    fields: Fields<'_>,
    container: &Container,
    is_init: bool,
) -> anyhow::Result<ContainerSpec> {
    let about = || format!("container {}", container.name);
    let is_proxy = is_image(&container.image, PROXY_IMAGE);
    let local = local_command(node, container, is_proxy).with_context(about)?;
    let mut environment = environment::build(container, fields, &local.environment).with_context(about)?;
    if is_image(&container.image, INIT_IMAGE) {
        // Health checks come from the node and are for the app; names and the control plane are there, too.
        environment.insert("LATEEN_EXCLUDE_PEERS".to_owned(), NODE_ADDRESS.to_string());
    }
    if is_proxy {
        // Everybody is the same user here, so that the redirect rules know the proxy by the mark on its sockets.
        environment.entry("LATEEN_SOCKET_MARK".to_owned()).or_insert_with(|| PROXY_MARK.to_owned());
    }
    let mut mounts = files.to_vec();
    mounts.extend(volumes.mounts(container, is_proxy, &environment).with_context(about)?);
    let staging = folder.join("staging").join(&container.name);
    std::fs::create_dir_all(&staging).with_context(|| format!("create {}", staging.display()))?;
    let workdir = match (&container.working_dir, &local.workdir) {
        (own, _) if !own.is_empty() => PathBuf::from(own),
        (_, Some(image)) => image.clone(),
        _ => PathBuf::from("/"),
    };
    let spec = ContainerSpec {
        name: container.name.clone(),
        image: container.image.clone(),
        is_init,
        is_sidecar: is_init && container.restart_policy.as_deref() == Some("Always"),
        is_proxy,
        log: node.state.log_file(&fields.metadata.namespace, &fields.metadata.name, &container.name),
        startup: check(container.startup_probe.as_deref(), container, "startupProbe").with_context(about)?,
        liveness: check(container.liveness_probe.as_deref(), container, "livenessProbe").with_context(about)?,
        readiness: readiness(container, is_proxy).with_context(about)?,
        post_start: hook(container, |lifecycle| lifecycle.post_start.as_ref()).with_context(about)?,
        pre_stop: hook(container, |lifecycle| lifecycle.pre_stop.as_ref()).with_context(about)?,
        plan: ContainerPlan {
            command: local.command.iter().map(|word| expand(word, &environment)).collect(),
            program: local.program,
            environment,
            workdir,
            hostname: if fields.spec.hostname.is_empty() { &fields.metadata.name } else { &fields.spec.hostname }
                .clone(),
            staging,
            mounts,
            network_admin: is_proxy || is_image(&container.image, INIT_IMAGE),
        },
    };
    Ok(spec)
}

/// Whether a container is the proxy or the one that sets the redirect rules up.
pub(super) fn is_ours(container: &Container) -> bool {
    is_image(&container.image, PROXY_IMAGE) || is_image(&container.image, INIT_IMAGE)
}

/// `lateen/proxy`, `lateen/proxy:0.1.0`, `registry.example/lateen/proxy:0.1.0`
fn is_image(image: &str, name: &str) -> bool {
    let bare = image.split('@').next().unwrap_or(image);
    let bare = match bare.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => bare,
    };
    bare == name || bare.strip_suffix(name).is_some_and(|registry| registry.ends_with('/'))
}

fn local_command(node: &Node, container: &Container, is_proxy: bool) -> anyhow::Result<LocalCommand> {
    let ours = |program: &Option<PathBuf>, name: &str| -> anyhow::Result<LocalCommand> {
        let program =
            program.clone().with_context(|| format!("there is no program {name} beside lateen or on PATH"))?;
        let mut command = vec![name.to_owned()];
        // The image's entry point is the program itself; a manifest may repeat it as `command`.
        command.extend(container.command.iter().skip(1).chain(&container.args).cloned());
        Ok(LocalCommand { program, command, environment: BTreeMap::new(), workdir: None })
    };
    if is_proxy {
        return ours(&node.plan.lateen_proxy, "lateen-proxy");
    }
    if is_image(&container.image, INIT_IMAGE) {
        return ours(&node.plan.lateen_intercept, "lateen-intercept");
    }
    node.plan.images.command_for(container)
}

fn check(probe: Option<&Probe>, container: &Container, what: &str) -> anyhow::Result<Option<Check>> {
    probe.map(|probe| Check::from_probe(probe, &container.ports).with_context(|| what.to_owned())).transpose()
}

fn readiness(container: &Container, is_proxy: bool) -> anyhow::Result<Readiness> {
    if let Some(check) = check(container.readiness_probe.as_deref(), container, "readinessProbe")? {
        return Ok(Readiness::Probe(check));
    }
    if is_proxy {
        let (port, path) = PROXY_READINESS;
        return Ok(Readiness::Probe(Check::http(port, path)));
    }
    let ports = declared(&container.ports);
    Ok(if ports.is_empty() { Readiness::Running } else { Readiness::Listening(Check::listening(ports)) })
}

fn hook(
    container: &Container,
    which: impl Fn(&lateen_api::kubernetes::probe::Lifecycle) -> Option<&LifecycleHandler>,
) -> anyhow::Result<Option<Hook>> {
    let Some(handler) = container.lifecycle.as_deref().and_then(which) else { return Ok(None) };
    if let Some(pause) = handler.sleep {
        return Ok(Some(Hook::Sleep(Duration::from_secs(pause.seconds))));
    }
    if handler.exec.is_none() && handler.http_get.is_none() {
        bail!("a lifecycle handler needs exec, httpGet or sleep");
    }
    let probe = Probe { exec: handler.exec.clone(), http_get: handler.http_get.clone(), ..Probe::default() };
    Ok(Some(Hook::Ask(Check::from_probe(&probe, &container.ports).context("lifecycle")?.question)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_images_are_known_by_any_version_and_registry() {
        for (image, is) in [
            ("lateen/proxy", true),
            ("lateen/proxy:0.1.0", true),
            ("registry.example:5000/lateen/proxy:0.1.0", true),
            ("lateen/proxy@sha256:0", true),
            ("xlateen/proxy", false),
            ("lateen/proxyv2", false),
        ] {
            assert_eq!(is_image(image, PROXY_IMAGE), is, "{image}");
        }
    }
}

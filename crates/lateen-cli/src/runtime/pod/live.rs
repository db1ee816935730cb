//! What is the case with a pod and its containers now, and how that reads as a Pod's status.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use lateen_api::kubernetes::PodStatus;
use lateen_api::kubernetes::pod_status::{ContainerStatus, PodCondition, PodIp};
use serde_json::{Value, json};

use crate::runtime::messages::EnterPlan;
use crate::runtime::node::network::NODE_ADDRESS;

/// A pod's state.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Live {
    /// Asked to end: it gets no new traffic.
    pub(crate) terminating: bool,
    /// The injector gave it a proxy.
    pub(crate) injected: bool,
    /// Why it could not be set up; it is tried again.
    pub(crate) failure: Option<String>,
    /// All init containers are done.
    pub(crate) initialized: bool,
    /// Ports of the containers that have names.
    pub(crate) named_ports: BTreeMap<String, u16>,
    pub(crate) init: Vec<ContainerLive>,
    pub(crate) containers: Vec<ContainerLive>,
}

/// A container's state.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ContainerLive {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) is_proxy: bool,
    /// Runs beside the others, though listed among the init containers.
    pub(crate) is_sidecar: bool,
    pub(crate) phase: Phase,
    /// Its first process, while it runs.
    pub(crate) pid: Option<i32>,
    /// An attempt to start it was made, and what has to follow a start was done.
    pub(crate) attempted: bool,
    /// Its startup probe has succeeded, or it has none.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// How its last run ended.
    pub(crate) last_end: Option<End>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) workdir: PathBuf,
}

/// What a container does now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Phase {
    #[default]
    Creating,
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        since: String,
    },
    Ended(End),
}

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub(crate) status: u8,
    pub(crate) at: String,
}

impl Live {
    /// All containers are ready.
    pub(crate) fn is_ready(&self) -> bool {
        let sidecars = self.init.iter().filter(|container| container.is_sidecar);
        self.initialized && !self.containers.is_empty() && self.containers.iter().chain(sidecars).all(|it| it.ready)
    }

    /// The container of a name; without a name, the first one that is no proxy.
    pub(crate) fn choose(&self, name: Option<&str>) -> anyhow::Result<&ContainerLive> {
        let mut all = self.containers.iter().chain(&self.init);
        match name {
            Some(name) => all.find(|container| container.name == name).with_context(|| {
                let names: Vec<&str> = self.containers.iter().chain(&self.init).map(|it| it.name.as_str()).collect();
                match names.as_slice() {
                    [] => "the pod has no container yet".to_owned(),
                    names => format!("there is no container {name}; there are {}", names.join(", ")),
                }
            }),
            None => {
                let first = self.containers.iter().find(|container| !container.is_proxy);
                first.or_else(|| self.containers.first()).context("the pod has no container yet")
            }
        }
    }

    /// As a Pod's status; `now` is RFC 3339.
    pub(crate) fn status(&self, address: Ipv4Addr, started: &str, now: &str) -> PodStatus {
        let ready = self.is_ready();
        let unready: Vec<&str> =
            self.containers.iter().filter(|container| !container.ready).map(|it| it.name.as_str()).collect();
        let waiting = (!unready.is_empty()).then(|| format!("containers with unready status: [{}]", unready.join(" ")));
        let condition = |kind: &str, is: bool, message: Option<String>| PodCondition {
            kind: kind.to_owned(),
            status: if is { "True" } else { "False" }.to_owned(),
            reason: (!is && message.is_some()).then(|| "ContainersNotReady".to_owned()),
            message: message.filter(|_| !is),
            last_transition_time: Some(now.to_owned()),
            ..PodCondition::default()
        };
        let any_running = self.containers.iter().any(|it| matches!(it.phase, Phase::Running { .. } | Phase::Ended(_)));
        PodStatus {
            phase: if any_running { "Running" } else { "Pending" }.to_owned(),
            pod_ip: address.to_string(),
            pod_ips: vec![PodIp { ip: address.to_string() }],
            host_ip: Some(Box::new(Value::String(NODE_ADDRESS.to_string()))),
            conditions: vec![
                condition("Initialized", self.initialized, None),
                condition("Ready", ready, waiting.clone()),
                condition("ContainersReady", ready, waiting),
                condition("PodScheduled", true, None),
            ],
            container_statuses: self.containers.iter().map(ContainerLive::status).collect(),
            init_container_statuses: self.init.iter().map(ContainerLive::status).collect(),
            start_time: Some(started.to_owned()),
            message: self.failure.clone(),
            reason: self.failure.as_ref().map(|_| "CreatePodError".to_owned()),
            ..PodStatus::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(ready: bool) -> Self {
        let container = ContainerLive { ready, ..ContainerLive::default() };
        Self { initialized: true, containers: vec![container], ..Self::default() }
    }
}

impl ContainerLive {
    /// What a helper needs to know to run a command inside.
    pub(crate) fn enter(
        &self,
        command: Vec<String>,
        more: BTreeMap<String, String>,
        terminal: bool,
    ) -> anyhow::Result<EnterPlan> {
        let pid = self.pid.with_context(|| format!("container {} does not run", self.name))?;
        let mut environment = self.environment.clone();
        environment.extend(more);
        let (workdir, network_admin) = (self.workdir.clone(), self.is_proxy);
        Ok(EnterPlan { pid, command, environment, workdir, terminal, network_admin })
    }

    fn status(&self) -> ContainerStatus {
        let ended = |end: &End| {
            let reason = if end.status == 0 { "Completed" } else { "Error" };
            json!({"terminated": {"exitCode": end.status, "reason": reason, "finishedAt": end.at}})
        };
        let state = match &self.phase {
            Phase::Creating => json!({"waiting": {"reason": "PodInitializing"}}),
            Phase::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            Phase::Running { since } => json!({"running": {"startedAt": since}}),
            Phase::Ended(end) => ended(end),
        };
        ContainerStatus {
            name: self.name.clone(),
            ready: self.ready,
            restart_count: self.restarts,
            started: Some(self.started),
            image: self.image.clone(),
            state: Some(Box::new(state)),
            last_state: self.last_end.as_ref().map(|end| Box::new(ended(end))),
            ..ContainerStatus::default()
        }
    }
}

/// The time now, RFC 3339 in whole seconds, as Kubernetes writes it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

//! What a pod asks for and one machine cannot give is refused by name. What would only limit or place it (resources,
//! affinity, priorities, users to run as: everybody is the user who started the mesh) makes no difference here.

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::container::SecurityContext;
use lateen_api::kubernetes::{Container, PodSpec};
use serde_json::Value;

use super::container_plan::is_ours;

/// Capabilities that a container may ask for, because it does not need them here.
const NEEDLESS: [&str; 1] = ["NET_BIND_SERVICE"];

/// Checks a pod's spec after injection.
pub(super) fn check(spec: &PodSpec) -> anyhow::Result<()> {
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let refused = [
        ("hostNetwork", spec.host_network),
        ("hostPID", is_true(spec.host_pid.as_deref())),
        ("hostIPC", is_true(spec.host_ipc.as_deref())),
        ("shareProcessNamespace", is_true(spec.share_process_namespace.as_deref())),
        ("dnsConfig", spec.dns_config.is_some()),
        ("dnsPolicy: None", spec.dns_policy.as_deref().is_some_and(|policy| policy == "None")),
        ("hostAliases", spec.host_aliases.as_ref().is_some_and(|list| list.as_array().is_none_or(|it| !it.is_empty()))),
        ("activeDeadlineSeconds", spec.active_deadline_seconds.is_some()),
        ("ephemeralContainers", spec.ephemeral_containers.is_some()),
        ("restartPolicy other than Always", spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always")),
    ];
    for (field, is_asked_for) in refused {
        if is_asked_for {
            bail!("`{field}` is not supported on one machine");
        }
    }
    for container in spec.init_containers.iter().chain(&spec.containers).filter(|container| !is_ours(container)) {
        check_container(container).with_context(|| format!("container {}", container.name))?;
    }
    Ok(())
}

fn check_container(container: &Container) -> anyhow::Result<()> {
    if container.stdin == Some(true) || container.tty == Some(true) {
        bail!("`stdin` and `tty` are not supported on one machine: nobody is at the other end");
    }
    if container.volume_devices.is_some() {
        bail!("`volumeDevices` is not supported on one machine");
    }
    let SecurityContext { privileged, capabilities, .. } = *container.security_context.clone().unwrap_or_default();
    if privileged == Some(true) {
        bail!("`privileged` is not supported on one machine");
    }
    let added = capabilities.unwrap_or_default().add;
    if let Some(capability) = added.iter().find(|name| !NEEDLESS.contains(&name.trim_start_matches("CAP_"))) {
        bail!("capability {capability} is not given on one machine");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(spec: Value) -> String {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        check(&spec).map_or_else(|error| format!("{error:#}"), |()| String::new())
    }

    #[test]
    fn what_cannot_be_had_is_refused_and_what_makes_no_difference_is_not() {
        assert_eq!(told(json!({"containers": [], "hostPID": true})), "`hostPID` is not supported on one machine");
        let capable =
            |name: &str| json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": [name]}}}]});
        assert_eq!(told(capable("SYS_ADMIN")), "container c: capability SYS_ADMIN is not given on one machine");
        assert_eq!(told(capable("NET_BIND_SERVICE")), "");
        let ours = json!({"containers": [{
            "name": "istio-init", "image": "lateen/init:1",
            "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}}
        }]});
        assert_eq!(told(ours), "");
        let usual = json!({
            "affinity": {}, "tolerations": [], "securityContext": {"runAsUser": 1000},
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "imagePullPolicy": "Always"}],
        });
        assert_eq!(told(usual), "");
    }
}

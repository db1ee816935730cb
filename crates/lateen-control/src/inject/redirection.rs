//! The container that redirects the pod's traffic, and ends.

use lateen_api::Diagnostic;
use serde_json::{Value, json};

use super::running::{Interception, Running};
use super::{INIT_CONTAINER, Settings, Subject, proxy, traffic};

/// None where the pod wants no redirection (interception mode `NONE`).
pub(super) fn container(
    subject: &Subject<'_>,
    running: &Running,
    settings: &Settings,
) -> Result<Option<Value>, Vec<Diagnostic>> {
    let arguments = traffic::arguments(subject, running.status_port)?;
    if running.interception == Interception::None {
        return Ok(None);
    }
    let mut container = json!({
        "name": INIT_CONTAINER,
        "image": settings.init_image,
        "args": arguments,
        "resources": proxy::default_resources(),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        },
    });
    proxy::pull_policy(&mut container, settings);
    Ok(Some(container))
}

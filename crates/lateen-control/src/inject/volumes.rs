//! The volumes of the proxy: ours, and those that a pod's annotations ask for.
//!
//! An annotation must not be a way to what its writer could not have otherwise: volumes are of kinds that hold nothing of the
//! node, and nothing is mounted over what the proxy's identity is made of.

use lateen_api::Diagnostic;
use serde_json::{Map, Value, json};

use super::Subject;

const TOKEN_VOLUME: &str = "istio-token";
const ROOT_VOLUME: &str = "istiod-ca-cert";
/// A volume of the pod's own (Istio's name): in it is the socket of whoever gives the workload's identity, such as a SPIRE agent;
/// or, where nobody does, our proxy gives it there, to the containers that have the volume, too.
const SOCKET_VOLUME: &str = "workload-socket";
const USER_VOLUMES: &str = "sidecar.istio.io/userVolume";
const USER_MOUNTS: &str = "sidecar.istio.io/userVolumeMount";
/// Kinds of volumes that an annotation may ask for.
const HARMLESS: [&str; 6] = ["configMap", "secret", "emptyDir", "projected", "downwardAPI", "persistentVolumeClaim"];
/// Where the proxy's token, roots and sockets are, and what it is itself.
const GUARDED: [&str; 6] = ["/var/run/secrets", "/proc", "/sys", "/dev", "/etc", "/usr"];

/// What the proxy needs, and what annotations ask for.
pub(super) fn ours(subject: &Subject<'_>) -> Result<Vec<Value>, Vec<Diagnostic>> {
    let mut out = asked(subject)?;
    out.push(json!({"name": TOKEN_VOLUME, "projected": {"sources": [
        {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}
    ]}}));
    out.push(json!({"name": ROOT_VOLUME, "configMap": {"name": "istio-ca-root-cert"}}));
    Ok(out)
}

/// Where the proxy has them.
pub(super) fn mounts(subject: &Subject<'_>) -> Result<Vec<Value>, Vec<Diagnostic>> {
    let mount = |volume: &str, path: &str| json!({"name": volume, "mountPath": path, "readOnly": true});
    let mut out = vec![mount(TOKEN_VOLUME, "/var/run/secrets/tokens"), mount(ROOT_VOLUME, "/var/run/secrets/istio")];
    let mut volumes = subject.pod["spec"]["volumes"].as_array().into_iter().flatten();
    if volumes.any(|volume| volume["name"] == SOCKET_VOLUME) {
        out.push(json!({"name": SOCKET_VOLUME, "mountPath": "/var/run/secrets/workload-spiffe-uds"}));
    }
    out.extend(asked_mounts(subject)?);
    Ok(out)
}

fn asked(subject: &Subject<'_>) -> Result<Vec<Value>, Vec<Diagnostic>> {
    let wrong = |message: String| vec![subject.wrong(USER_VOLUMES, message)];
    let mut out = Vec::new();
    for (name, source) in mapping(subject, USER_VOLUMES)? {
        let kinds: Vec<&String> = source.as_object().into_iter().flat_map(Map::keys).collect();
        let [kind] = kinds.as_slice() else {
            return Err(wrong(format!("volume `{name}` has to be of one kind, such as {{\"emptyDir\": {{}}}}")));
        };
        if !HARMLESS.contains(&kind.as_str()) {
            let known = HARMLESS.join(", ");
            return Err(wrong(format!("volume `{name}` is a {kind}: an annotation may ask for {known}")));
        }
        if [TOKEN_VOLUME, ROOT_VOLUME, SOCKET_VOLUME].contains(&name.as_str()) || is_there(subject, &name) {
            return Err(wrong(format!("there is a volume `{name}` already")));
        }
        let mut volume = Map::from_iter([("name".to_owned(), json!(name))]);
        volume.extend(source.as_object().cloned().unwrap_or_default());
        out.push(Value::Object(volume));
    }
    Ok(out)
}

fn is_there(subject: &Subject<'_>, name: &str) -> bool {
    subject.pod["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == name)
}

fn asked_mounts(subject: &Subject<'_>) -> Result<Vec<Value>, Vec<Diagnostic>> {
    let wrong = |message: String| vec![subject.wrong(USER_MOUNTS, message)];
    let asked = mapping(subject, USER_VOLUMES)?;
    let mut out = Vec::new();
    for (name, mount) in mapping(subject, USER_MOUNTS)? {
        if !asked.contains_key(&name) && !is_there(subject, &name) {
            return Err(wrong(format!("there is no volume `{name}`")));
        }
        let Some(mut mount) = mount.as_object().cloned() else {
            return Err(wrong(format!("`{name}` has to be a mount, such as {{\"mountPath\": \"/etc/x\"}}")));
        };
        if let Some(field) = mount.keys().find(|field| !["mountPath", "subPath", "readOnly"].contains(&field.as_str()))
        {
            return Err(wrong(format!("`{name}`: a mount has mountPath, subPath and readOnly, and no `{field}`")));
        }
        let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
        let is_plain = path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..");
        if !is_plain {
            return Err(wrong(format!("`{name}`: mountPath `{path}` is no path from the root without `..`")));
        }
        if overlaps_what_is_guarded(path) {
            return Err(wrong(format!("`{name}`: nothing can be mounted at {path}, which is the proxy's own")));
        }
        mount.insert("name".to_owned(), json!(name));
        out.push(Value::Object(mount));
    }
    Ok(out)
}

/// Over one of them, below one of them, or around one of them. `/etc/` is open below: certificates for DestinationRules are put
/// there.
fn overlaps_what_is_guarded(path: &str) -> bool {
    let parts =
        |path: &str| path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    let path: Vec<String> = parts(path);
    GUARDED.iter().any(|guarded| {
        let own: Vec<String> = parts(guarded);
        own.starts_with(&path) || (*guarded != "/etc" && path.starts_with(&own))
    })
}

/// What an annotation of JSON names.
fn mapping(subject: &Subject<'_>, annotation: &str) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let Some(text) = subject.annotation(annotation).filter(|text| !text.trim().is_empty()) else {
        return Ok(Map::new());
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(named)) => Ok(named),
        Ok(_) => Err(vec![subject.wrong(annotation, "a JSON object by volumes' names is expected".to_owned())]),
        Err(error) => Err(vec![subject.wrong(annotation, format!("it is no JSON: {error}"))]),
    }
}

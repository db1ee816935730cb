//! The container that the proxy runs in.

use lateen_api::Diagnostic;
use serde_json::{Map, Value, json};

use super::running::Running;
use super::{PROXY_CONTAINER, Settings, SidecarForm, Subject, scraping, template, volumes};

const PROXY_USER: u32 = 1337;
const IMAGE: &str = "sidecar.istio.io/proxyImage";
const IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
const CPU: &str = "sidecar.istio.io/proxyCPU";
const MEMORY: &str = "sidecar.istio.io/proxyMemory";
const CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
const MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
const READINESS: &str = "readiness.status.sidecar.istio.io";
/// Readiness of the proxy, as Istio numbers it.
const HEALTH_PORT: u16 = 15021;
const METRICS_PORT: u16 = 15090;

/// Beside a workload.
pub(super) fn sidecar(subject: &Subject<'_>, running: &Running, settings: &Settings) -> Result<Value, Vec<Diagnostic>> {
    let mut container = container("sidecar", subject, running, settings)?;
    let is_native = running.form == SidecarForm::Native;
    if is_native {
        container["restartPolicy"] = json!("Always");
    }
    if settings.has_kubelet {
        let exec = |command: &[&str]| json!({"exec": {"command": command}});
        let mut lifecycle = Map::new();
        if running.holds_application && !is_native {
            // A kubelet starts the next container when the hook of the one before has ended.
            lifecycle.insert("postStart".to_owned(), exec(&["lateen-proxy", "wait"]));
        }
        if is_native {
            // A native sidecar is stopped after the others. What arrives is to end before; what the app sends goes on.
            let drain = exec(&["lateen-proxy", "request", "POST", "/drain_connections?inboundonly"]);
            lifecycle.insert("preStop".to_owned(), drain);
        }
        if !lifecycle.is_empty() {
            container["lifecycle"] = Value::Object(lifecycle);
        }
    }
    Ok(container)
}

/// As the workload itself.
pub(super) fn gateway(subject: &Subject<'_>, running: &Running, settings: &Settings) -> Result<Value, Vec<Diagnostic>> {
    container("router", subject, running, settings)
}

fn container(
    role: &str,
    subject: &Subject<'_>,
    running: &Running,
    settings: &Settings,
) -> Result<Value, Vec<Diagnostic>> {
    let mut args = vec![role.to_owned()];
    if let Some(level) = subject.annotation(LOG_LEVEL) {
        args.extend(["--log-level".to_owned(), log_level(subject, level)?]);
    }
    if let Some(threads) = running.concurrency {
        args.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    if let Some(drain) = running.drain {
        args.extend(["--drain-time-s".to_owned(), drain.as_secs().to_string()]);
    }
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": image(subject, settings)?,
        "args": args,
        "env": environment(role, subject, running, settings),
        "ports": [{"containerPort": METRICS_PORT, "name": "http-envoy-prom", "protocol": "TCP"}],
        "resources": resources(subject)?,
        "securityContext": {
            "runAsUser": PROXY_USER,
            "runAsGroup": PROXY_USER,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": volumes::mounts(subject)?,
    });
    pull_policy(&mut container, settings);
    if settings.has_kubelet && running.status_port.is_some() {
        let [startup, readiness] = probes(subject)?;
        container["startupProbe"] = startup;
        container["readinessProbe"] = readiness;
    }
    Ok(container)
}

pub(super) fn pull_policy(container: &mut Value, settings: &Settings) {
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
}

fn image(subject: &Subject<'_>, settings: &Settings) -> Result<String, Vec<Diagnostic>> {
    match subject.annotation(IMAGE_TYPE) {
        // There is one image, and it has neither a shell nor anything else in it.
        None | Some("" | "default" | "distroless") => {}
        Some(other) => {
            let message = format!("there is no image of type `{other}`: there is one, which is distroless");
            return Err(vec![subject.wrong(IMAGE_TYPE, message)]);
        }
    }
    match subject.annotation(IMAGE) {
        None => Ok(settings.proxy_image.clone()),
        Some(image) => {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
            if image.is_empty() || !image.bytes().all(legal) {
                return Err(vec![subject.wrong(IMAGE, format!("`{image}` is not the name of an image"))]);
            }
            Ok(image.to_owned())
        }
    }
}

/// The levels that Istio takes, by the name that ours has.
fn log_level(subject: &Subject<'_>, level: &str) -> Result<String, Vec<Diagnostic>> {
    Ok(match level {
        "trace" | "debug" | "info" | "error" | "off" => level,
        "warning" | "warn" => "warn",
        "critical" => "error",
        _ => {
            let message = format!("`{level}` is not a log level (trace, debug, info, warning, error, critical, off)");
            return Err(vec![subject.wrong(LOG_LEVEL, message)]);
        }
    }
    .to_owned())
}

fn environment(role: &str, subject: &Subject<'_>, running: &Running, settings: &Settings) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let apps = super::names(&subject.pod["spec"]["containers"]).filter(|name| *name != PROXY_CONTAINER);
    let apps: Vec<&str> = apps.collect();
    let mut labels = template::labels(subject, (role == "sidecar").then_some("istio"));
    labels.extend(subject.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
    let discovery = running.discovery.as_deref().unwrap_or(&settings.discovery_address);
    let mut out = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("PILOT_DISCOVERY", discovery),
        value("CA_ADDR", discovery),
        value("TRUST_DOMAIN", &settings.trust_domain),
        value("ISTIO_META_CLUSTER_ID", &settings.cluster_id),
        value("ISTIO_META_MESH_ID", &settings.trust_domain),
        value("ISTIO_META_WORKLOAD_NAME", &subject.workload().name),
        value("ISTIO_META_APP_CONTAINERS", &apps.join(",")),
        value("LATEEN_LABELS", &Value::Object(labels).to_string()),
    ];
    out.extend(scraping::told(subject, running, settings).map(|told| value("ISTIO_PROMETHEUS_ANNOTATIONS", &told)));
    out.extend(settings.socket_mark.map(|mark| value("LATEEN_SOCKET_MARK", &mark.to_string())));
    out.extend(running.status_port.map(|port| value("LATEEN_STATUS_PORT", &port.to_string())));
    out.retain(|variable| !running.environment.contains_key(variable["name"].as_str().unwrap_or_default()));
    out.extend(running.environment.iter().map(|(name, text)| value(name, text)));
    out
}

/// Any annotation about resources replaces all defaults (Istio's template does so).
fn resources(subject: &Subject<'_>) -> Result<Value, Vec<Diagnostic>> {
    let mut own = json!({});
    let mut problems = Vec::new();
    for (annotation, name, amounts) in [
        (CPU, "cpu", "requests"),
        (MEMORY, "memory", "requests"),
        (CPU_LIMIT, "cpu", "limits"),
        (MEMORY_LIMIT, "memory", "limits"),
    ] {
        let Some(text) = subject.annotation(annotation) else { continue };
        if is_quantity(text) {
            own[amounts][name] = json!(text);
        } else {
            problems.push(subject.wrong(annotation, format!("`{text}` is not a quantity such as 100m, 128Mi or 2")));
        }
    }
    match own.as_object().is_some_and(Map::is_empty) {
        _ if !problems.is_empty() => Err(problems),
        true => Ok(default_resources()),
        false => Ok(own),
    }
}

/// Kubernetes' quantities, of which there can be some (`resource.Quantity`, without a sign).
fn is_quantity(text: &str) -> bool {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i8>().is_ok());
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    digits > 0 && number.len() - digits < 2 && (exponent || known.contains(&suffix))
}

pub(super) fn default_resources() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
}

/// Up within ten minutes; and ready or not from then on.
fn probes(subject: &Subject<'_>) -> Result<[Value; 2], Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut number = |name: &str, usual: u32, least: u32| {
        let annotation = format!("{READINESS}/{name}");
        let Some(text) = subject.annotation(&annotation) else { return usual };
        match text.trim().parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if number >= least => number,
            _ => {
                let message = format!("`{text}` is not a number of at least {least}");
                problems.push(subject.wrong(&annotation, message));
                usual
            }
        }
    };
    let (delay, period) = (number("initialDelaySeconds", 0, 0), number("periodSeconds", 15, 1));
    let failures = number("failureThreshold", 4, 1);
    if !problems.is_empty() {
        return Err(problems);
    }
    let get = json!({"path": "/healthz/ready", "port": HEALTH_PORT});
    Ok([
        json!({"httpGet": get, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 600}),
        json!({"httpGet": get, "initialDelaySeconds": delay, "periodSeconds": period, "timeoutSeconds": 3,
            "failureThreshold": failures}),
    ])
}

#[cfg(test)]
mod tests {
    use super::is_quantity;

    #[test]
    fn quantities_are_kubernetes() {
        for text in ["1", "0.5", ".5", "5.", "100m", "128Mi", "2Gi", "1e3", "1E-2", "3k", "7E"] {
            assert!(is_quantity(text), "{text}");
        }
        for text in ["", "much", "-1", "1.2.3", ".", "1 Gi", "1gi", "1K", "1e", "1e999", "Mi"] {
            assert!(!is_quantity(text), "{text}");
        }
    }
}

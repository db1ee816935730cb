//! The annotation `proxy.istio.io/config`: Istio's `ProxyConfig` of the mesh, as YAML in a text. What of it has no effect here
//! is said, and so is what Istio does not know either.

use super::check::Check;
use crate::meta::StringMap;
use crate::proxy_settings::{FIELDS, ProxySettings};
use crate::yaml::{Value, documents};

const ANNOTATION: &str = "proxy.istio.io/config";

/// By the injector; others by translation.
pub(crate) const HONOURED: [&str; 7] = [
    "concurrency",
    "discoveryAddress",
    "holdApplicationUntilProxyStarts",
    "interceptionMode",
    "proxyMetadata",
    "statusPort",
    "terminationDrainDuration",
];

/// Istio's other settings.
pub(crate) const IGNORED: &[&str] = &[
    "availabilityZone",
    "binaryPath",
    "caCertificatesPem",
    "configPath",
    "connectTimeout",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "discoveryRefreshDelay",
    "drainDuration",
    "envoyAccessLogService",
    "envoyMetricsService",
    "envoyMetricsServiceAddress",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "image",
    "meshId",
    "parentShutdownDuration",
    "privateKeyProvider",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "sds",
    "serviceCluster",
    "statNameLength",
    "statsCompression",
    "statsdUdpAddress",
    "tracing",
    "tracingServiceName",
    "zipkinAddress",
];

/// Of annotations at this field. What cannot be read is for the injector to refuse.
pub(super) fn check(check: &mut Check<'_>, field: &str, annotations: &StringMap) {
    let Some(text) = annotations.get(ANNOTATION) else { return };
    let Some(Ok(node)) = documents(text).into_iter().next() else { return };
    let Value::Mapping(entries) = &node.value else { return };
    for mistake in ProxySettings::read(&node, "").1 {
        check.error(format!("{field}.{ANNOTATION}"), format!("{}: {}", mistake.field, mistake.message));
    }
    let others = entries.iter().filter_map(|(key, _)| key.as_str());
    for name in others.filter(|name| !HONOURED.contains(name) && !FIELDS.contains(name)) {
        let field = format!("{field}.{ANNOTATION}");
        if IGNORED.contains(&name) {
            check.warn(field, format!("`{name}` is not supported yet and has no effect"));
        } else {
            check.error(field, format!("there is no setting `{name}`"));
        }
    }
}

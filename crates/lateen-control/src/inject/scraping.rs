//! Where a pod's metrics are: the proxy gives the application's together with its own (Istio: `enablePrometheusMerge`), so that
//! who scrapes needs no way to the application.

use serde_json::{Map, Value, json};

use super::running::Running;
use super::{Settings, Subject};

const SCRAPE: &str = "prometheus.io/scrape";
const PATH: &str = "prometheus.io/path";
const PORT: &str = "prometheus.io/port";
const MERGE: &str = "prometheus.istio.io/merge-metrics";

/// Where the proxy gives them, at its status port.
const PROXY_PATH: &str = "/stats/prometheus";

/// The port at which the pod's metrics are given by its proxy, if they are.
fn merged_at(subject: &Subject<'_>, running: &Running, settings: &Settings) -> Option<String> {
    let said = |annotation: &str| subject.annotation(annotation).and_then(|text| text.parse::<bool>().ok());
    let wanted = said(MERGE).unwrap_or(settings.merges_metrics);
    let port = running.status_port?.to_string();
    // A pod that is not to be scraped is none of the proxy's affairs; and one that names the proxy's port has it already.
    let merges = wanted && said(SCRAPE).unwrap_or(true) && subject.annotation(PORT) != Some(&port);
    merges.then_some(port)
}

/// What the proxy is told of the application's metrics (`ISTIO_PROMETHEUS_ANNOTATIONS`); none: there are none that anybody has
/// told of.
pub(super) fn told(subject: &Subject<'_>, running: &Running, settings: &Settings) -> Option<String> {
    merged_at(subject, running, settings)?;
    let said = [(SCRAPE, "scrape"), (PATH, "path"), (PORT, "port")];
    let said: Map<_, _> = said
        .into_iter()
        .filter_map(|(annotation, name)| Some((name.to_owned(), json!(subject.annotation(annotation)?))))
        .collect();
    (!said.is_empty()).then(|| Value::Object(said).to_string())
}

/// Points who scrapes to the proxy.
pub(super) fn redirect(pod: &mut Value, subject: &Subject<'_>, running: &Running, settings: &Settings) {
    let Some(port) = merged_at(subject, running, settings) else { return };
    if let Some(annotations) = super::fields_of(&mut pod["metadata"], "annotations") {
        for (annotation, value) in [(SCRAPE, "true"), (PATH, PROXY_PATH), (PORT, port.as_str())] {
            annotations.insert(annotation.to_owned(), json!(value));
        }
    }
}

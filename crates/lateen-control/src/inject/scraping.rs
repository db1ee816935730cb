//! Where a pod's metrics are: the proxy gives the application's together with its own (Istio: `enablePrometheusMerge`), so that
//! who scrapes needs no way to the application.

use lateen_api::Resource;
use lateen_api::kubernetes::Pod;
use serde_json::json;

use super::Settings;

const SCRAPE: &str = "prometheus.io/scrape";
const PATH: &str = "prometheus.io/path";
const PORT: &str = "prometheus.io/port";
const MERGE: &str = "prometheus.istio.io/merge-metrics";

/// Where the proxy gives them.
const PROXY_PORT: &str = "15020";
const PROXY_PATH: &str = "/stats/prometheus";

/// Whether the pod's metrics are given by its proxy.
fn merges(pod: &Resource<Pod>, settings: &Settings) -> bool {
    let said = |annotation: &str| pod.metadata.annotation(annotation).and_then(|text| text.parse::<bool>().ok());
    let wanted = said(MERGE).unwrap_or(settings.merges_metrics);
    // A pod that is not to be scraped is none of the proxy's affairs; and one that names the proxy's port has it already.
    wanted && said(SCRAPE).unwrap_or(true) && pod.metadata.annotation(PORT) != Some(PROXY_PORT)
}

/// What the proxy is told of the application's metrics (`ISTIO_PROMETHEUS_ANNOTATIONS`); none: there are none that anybody has
/// told of.
pub(super) fn told(pod: &Resource<Pod>, settings: &Settings) -> Option<String> {
    let said = [(SCRAPE, "scrape"), (PATH, "path"), (PORT, "port")];
    let said = said
        .into_iter()
        .filter_map(|(annotation, name)| Some((name.to_owned(), json!(pod.metadata.annotation(annotation)?))));
    let said: serde_json::Map<_, _> = said.collect();
    (merges(pod, settings) && !said.is_empty()).then(|| serde_json::Value::Object(said).to_string())
}

/// Points who scrapes to the proxy.
pub(super) fn redirect(pod: &mut Resource<Pod>, settings: &Settings) {
    if merges(pod, settings) {
        for (annotation, value) in [(SCRAPE, "true"), (PATH, PROXY_PATH), (PORT, PROXY_PORT)] {
            pod.metadata.annotations.insert(annotation.to_owned(), value.to_owned());
        }
    }
}

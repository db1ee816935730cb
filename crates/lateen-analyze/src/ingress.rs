//! The ingress gateway that an installation brings, and that no file of its users shows.
//!
//! Gateways select it by `istio: ingressgateway`. Files that bring one of their own are taken at their word.

use lateen_api::yaml;

use crate::Text;

/// What it is called in place of a file.
pub(crate) const ASSUMED: &str = "(the ingress gateway of an installation)";

/// As Istio installs it, as far as others refer to it.
pub(crate) const TEXT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: istio-ingressgateway-0, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {containers: [{name: istio-proxy, image: proxy}]}
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system, labels: {istio: ingressgateway}}
spec:
  selector: {istio: ingressgateway}
  ports:
  - {name: http2, port: 80}
  - {name: https, port: 443}
  - {name: tcp, port: 31400}
  - {name: tls, port: 15443}
";

/// Whether the texts have pods with its label.
pub(crate) fn is_in(texts: &[Text<'_>]) -> bool {
    let labels = |node: &yaml::Node| {
        let own = node.get("metadata").and_then(|it| it.get("labels"));
        let template = node.get("spec").and_then(|it| it.get("template")).and_then(|it| it.get("metadata"));
        let is_workload = matches!(node.get("kind").and_then(yaml::Node::as_str), Some("Pod" | "Deployment"));
        let found = template.and_then(|it| it.get("labels")).or(own).and_then(|it| it.get("istio"));
        is_workload && found.and_then(yaml::Node::as_str) == Some("ingressgateway")
    };
    texts.iter().flat_map(|text| yaml::documents(text.text)).flatten().any(|node| labels(&node))
}

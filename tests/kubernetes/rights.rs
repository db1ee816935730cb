//! What lateend's account may do, and what it may not: whoever has its token has no more than that.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use crate::cluster::Cluster;

/// Verb, resource (with group and subresource), namespace, name, and whether that is allowed.
const RIGHTS: &[(&str, &str, &str, &str, bool)] = &[
    ("list", "pods", "", "", true),
    ("create", "pods", "shop", "", false),
    ("create", "pods/exec", "shop", "", false),
    ("create", "serviceaccounts/token", "shop", "", false),
    ("watch", "secrets", "", "", true),
    ("create", "secrets", "istio-system", "", true),
    ("create", "secrets", "shop", "", false),
    ("patch", "secrets", "istio-system", "cacerts", false),
    ("delete", "secrets", "istio-system", "cacerts", false),
    ("patch", "configmaps", "shop", "istio-ca-root-cert", true),
    ("patch", "configmaps", "shop", "another", false),
    ("delete", "configmaps", "shop", "istio-ca-root-cert", false),
    ("patch", "virtualservices.networking.istio.io", "shop", "", false),
    ("patch", "virtualservices/status.networking.istio.io", "shop", "", true),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "lateen-sidecar-injector", true),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "another", false),
    ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "", false),
    ("update", "leases.coordination.k8s.io", "istio-system", "lateend-leader", true),
    ("update", "leases.coordination.k8s.io", "istio-system", "another", false),
    ("update", "leases.coordination.k8s.io", "kube-system", "lateend-leader", false),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", "", false),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", "", "", false),
    ("list", "nodes", "", "", false),
];

/// Asks for each of them.
pub(crate) async fn are_as_small_as_they_are_said_to_be(cluster: &Cluster) {
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    for (verb, resource, namespace, name, allowed) in RIGHTS {
        let (path, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (resource_name, subresource) = path.split_once('/').unwrap_or((path, ""));
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let attributes = ResourceAttributes {
            verb: text(verb),
            group: text(group),
            resource: text(resource_name),
            subresource: text(subresource),
            namespace: text(namespace),
            name: text(name),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: Some("system:serviceaccount:istio-system:lateend".to_owned()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        let status = answer.status.unwrap();
        assert_eq!(status.allowed, *allowed, "{verb} {resource} {namespace}/{name}: {:?}", status.reason);
    }
}

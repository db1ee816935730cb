//! Whether a cluster can take the mesh: it answers, is new enough, and lets us install.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use lateen_control::manifest::NAMESPACE;

use super::{Report, Verdict};
use crate::cluster::health;

const CATEGORY: &str = "Kubernetes";

/// What an installation makes: group, resource, and whether it is in a namespace.
const MADE: [(&str, &str, bool); 9] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("", "serviceaccounts", true),
    ("", "configmaps", true),
    ("", "services", true),
    ("apps", "deployments", true),
];

/// Whether there is somebody to ask further.
pub(super) async fn look(client: &Client, pre: bool, report: &mut Report) -> anyhow::Result<bool> {
    let name = "the API server answers, and is new enough";
    if let Err(error) = health::version(client).await {
        let fix = "check the address and the credentials of the kubeconfig (kubectl version), or upgrade the cluster";
        report.note(CATEGORY, name, Verdict::bad(format!("{error:#}"), fix));
        return Ok(false);
    }
    report.note(CATEGORY, name, Verdict::Good);
    if pre {
        let verdict = may_install(client).await?;
        report.note(CATEGORY, "you may install", verdict);
    }
    Ok(true)
}

async fn may_install(client: &Client) -> anyhow::Result<Verdict> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for (group, resource, is_namespaced) in MADE {
        for verb in ["create", "patch"] {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                namespace: is_namespaced.then(|| NAMESPACE.to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
            let review = SelfSubjectAccessReview { spec, ..Default::default() };
            let answer = reviews.create(&PostParams::default(), &review).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                missing.push(format!("{verb} {resource}"));
            }
        }
    }
    Ok(if missing.is_empty() {
        Verdict::Good
    } else {
        let fix = "install as somebody who may: an administrator of the cluster (ClusterRole cluster-admin) does";
        Verdict::bad(format!("you may not: {}", missing.join(", ")), fix)
    })
}

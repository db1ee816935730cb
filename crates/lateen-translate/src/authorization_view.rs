//! What decides who may ask a workload for what, for people to see: its policies with the lines that they stand on, and the
//! listeners that its proxy is sent because of them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_api::security::authorization_policy::{Action, Condition, Operation, Rule, Source};
use lateen_mesh::{Authorization, Mesh};
use serde::{Deserialize, Serialize};

use crate::{Cache, Named, ProxyView, resources, type_url};

/// Of one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationView {
    pub pod: String,
    pub namespace: String,
    pub address: String,
    /// As certificates have it.
    pub principal: String,
    /// In the order in which they are asked.
    pub policies: Vec<EffectivePolicy>,
    /// The listeners of the proxy for what comes in.
    pub listeners: Vec<EncodedListener>,
}

/// `envoy.config.listener.v3.Listener`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedListener {
    pub name: String,
    /// The message, in base64.
    pub message: String,
}

/// A policy that holds for the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePolicy {
    pub namespace: String,
    pub name: String,
    /// `CUSTOM`, `AUDIT`, `DENY` or `ALLOW`.
    pub action: String,
    /// Only tried.
    pub dry_run: bool,
    /// Whom it asks; empty but for `CUSTOM`.
    pub provider: String,
    /// Empty, if it stands in no file.
    pub file: String,
    pub line: u32,
    pub rules: Vec<EffectiveRule>,
}

/// What a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveRule {
    pub line: u32,
    pub words: String,
}

impl AuthorizationView {
    /// None where the mesh has no such pod.
    pub fn of(mesh: &Mesh, namespace: &str, pod: &str) -> Option<Self> {
        let proxy = ProxyView::of(mesh, namespace, pod)?;
        let workload = &proxy.workload;
        let policies = mesh.authorization(workload);
        let ordered = [&policies.custom, &policies.audit, &policies.deny, &policies.allow];
        let listeners = resources(mesh, &proxy, type_url::LISTENER, &Cache::new());
        let inbound = listeners.iter().filter(|listener| {
            *listener.name == *crate::names::VIRTUAL_INBOUND || listener.name.starts_with("inbound_")
        });
        let encoded = |listener: &Arc<Named>| EncodedListener {
            name: listener.name.to_string(),
            message: STANDARD.encode(listener.pieces.concat()),
        };
        let domain = &mesh.config().trust_domain;
        Some(Self {
            pod: workload.name.to_string(),
            namespace: workload.namespace.to_string(),
            address: workload.ip().map(|ip| ip.to_string()).unwrap_or_default(),
            principal: format!("{domain}/ns/{}/sa/{}", workload.namespace, workload.service_account),
            policies: ordered.into_iter().flatten().map(|policy| EffectivePolicy::of(policy)).collect(),
            listeners: inbound.map(encoded).collect(),
        })
    }
}

impl EffectivePolicy {
    fn of(policy: &Authorization) -> Self {
        let lines = policy.rule_lines.iter();
        Self {
            namespace: policy.namespace.to_string(),
            name: policy.name.to_string(),
            action: match policy.spec.action {
                Action::Allow => "ALLOW",
                Action::Deny => "DENY",
                Action::Audit => "AUDIT",
                Action::Custom => "CUSTOM",
            }
            .to_owned(),
            dry_run: policy.dry_run,
            provider: policy.spec.provider.as_ref().map_or_else(String::new, |provider| provider.name.clone()),
            file: policy.origin.file.as_deref().unwrap_or_default().to_owned(),
            line: policy.origin.line,
            rules: policy
                .spec
                .rules
                .iter()
                .zip(lines)
                .map(|(rule, line)| EffectiveRule { line: *line, words: words(rule) })
                .collect(),
        }
    }
}

/// A rule in plain words: `from namespaces a or b; to methods GET; when source.ip is 10.0.0.0/8`.
fn words(rule: &Rule) -> String {
    let mut parts = Vec::new();
    let sources: Vec<String> = rule.from.iter().filter_map(|from| from.source.as_ref()).map(source).collect();
    if !sources.is_empty() {
        parts.push(format!("from {}", sources.join(", or ")));
    }
    let operations: Vec<String> = rule.to.iter().filter_map(|to| to.operation.as_ref()).map(operation).collect();
    if !operations.is_empty() {
        parts.push(format!("to {}", operations.join(", or ")));
    }
    parts.extend(rule.when.iter().map(when));
    if parts.is_empty() { "everything".to_owned() } else { parts.join("; ") }
}

fn source(source: &Source) -> String {
    listed(&[
        ("principals", &source.principals),
        ("principals other than", &source.not_principals),
        ("request principals", &source.request_principals),
        ("request principals other than", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("namespaces other than", &source.not_namespaces),
        ("service accounts", &source.service_accounts),
        ("service accounts other than", &source.not_service_accounts),
        ("trust domains", &source.trust_domains),
        ("trust domains other than", &source.not_trust_domains),
        ("addresses", &source.ip_blocks),
        ("addresses other than", &source.not_ip_blocks),
        ("client addresses", &source.remote_ip_blocks),
        ("client addresses other than", &source.not_remote_ip_blocks),
    ])
}

fn operation(operation: &Operation) -> String {
    listed(&[
        ("hosts", &operation.hosts),
        ("hosts other than", &operation.not_hosts),
        ("ports", &operation.ports),
        ("ports other than", &operation.not_ports),
        ("methods", &operation.methods),
        ("methods other than", &operation.not_methods),
        ("paths", &operation.paths),
        ("paths other than", &operation.not_paths),
    ])
}

fn listed(lists: &[(&str, &Vec<String>)]) -> String {
    let said = lists.iter().filter(|(_, list)| !list.is_empty());
    said.map(|(what, list)| format!("{what} {}", list.join(" or "))).collect::<Vec<_>>().join(" and ")
}

fn when(condition: &Condition) -> String {
    let mut said = Vec::new();
    if !condition.values.is_empty() {
        said.push(format!("is {}", condition.values.join(" or ")));
    }
    if !condition.not_values.is_empty() {
        said.push(format!("is not {}", condition.not_values.join(" or ")));
    }
    format!("when {} {}", condition.key, said.join(" and "))
}

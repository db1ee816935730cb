//! AuthorizationPolicies as RBAC filters: what is logged, then what is denied, then what is allowed; before them, whom to ask.

mod condition;
pub(crate) mod custom;

use std::collections::HashMap;

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use lateen_api::security::authorization_policy::{Condition as When, Operation, Rule, Source};
use lateen_mesh::{Authorization as Policy, MeshConfig};
use rbac::permission::Rule as PermissionRule;
use rbac::principal::Identifier;
use rbac::rbac::Action;
use std::sync::Arc;

use crate::proto::{http_filter, network_filter};
use crate::view::View;
use condition::{Attribute, Condition, Context, NotCheckable, permission, principal};

const HTTP_NAME: &str = "envoy.filters.http.rbac";
const NETWORK_NAME: &str = "envoy.filters.network.rbac";

/// Before the names of what is counted of connections.
const STAT_PREFIX: &str = "tcp.";

/// The filters of a workload, for its HTTP and for its other filter chains.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authorization {
    /// An external authorizer comes before tokens are looked at.
    pub(crate) custom: Vec<HttpFilter>,
    pub(crate) http: Vec<HttpFilter>,
    pub(crate) network: Vec<listener::Filter>,
}

impl Authorization {
    /// The filters that enforce a workload's policies, in Istio's order. Without any policy there is no filter: everything is
    /// allowed. Tokens are checked by `tokens`: after external authorizers, which may ask nothing of them, and before
    /// everything else.
    pub(crate) fn of(view: &View<'_>, tokens: Option<HttpFilter>) -> Self {
        let policies = view.mesh.authorization(&view.proxy.workload);
        let config = view.mesh.config();
        let (custom, network) = custom::filters(view, &policies.custom);
        let mut out = Self { custom, http: Vec::from_iter(tokens), network };
        // Who is denied is told of, too.
        out.add(config, Action::Log, &policies.audit);
        out.add(config, Action::Deny, &policies.deny);
        out.add(config, Action::Allow, &policies.allow);
        out
    }

    fn add(&mut self, config: &MeshConfig, action: Action, policies: &[Arc<Policy>]) {
        if policies.is_empty() {
            return;
        }
        let (enforced, shadow) = rules(config, action, policies, false);
        let shadow_prefix = if shadow.is_some() { shadow_stat_prefix(action) } else { "" };
        let http = http_rbac::Rbac {
            rules: enforced,
            shadow_rules: shadow,
            shadow_rules_stat_prefix: shadow_prefix.to_owned(),
            ..http_rbac::Rbac::default()
        };
        self.http.push(http_filter(HTTP_NAME, &http));
        let (enforced, shadow) = rules(config, action, policies, true);
        let network = network_rbac::Rbac {
            rules: enforced,
            shadow_rules: shadow,
            shadow_rules_stat_prefix: shadow_prefix.to_owned(),
            stat_prefix: STAT_PREFIX.to_owned(),
            ..network_rbac::Rbac::default()
        };
        self.network.push(network_filter(NETWORK_NAME, &network));
    }
}

fn shadow_stat_prefix(action: Action) -> &'static str {
    match action {
        Action::Deny => "istio_dry_run_deny_",
        Action::Allow => "istio_dry_run_allow_",
        Action::Log => "",
    }
}

/// The policies of one action: those in force, and those that only try what they would do (`istio.io/dry-run`).
fn rules(
    config: &MeshConfig,
    action: Action,
    policies: &[Arc<Policy>],
    tcp: bool,
) -> (Option<rbac::Rbac>, Option<rbac::Rbac>) {
    let table = |dry_run: bool| {
        let mut listed = policies.iter().filter(|policy| policy.dry_run == dry_run).peekable();
        listed.peek()?;
        let policies = listed.flat_map(|policy| translate(config, action, policy, tcp)).collect();
        Some(rbac::Rbac { action: action as i32, policies, ..rbac::Rbac::default() })
    };
    (table(false), table(true))
}

fn translate(config: &MeshConfig, action: Action, policy: &Policy, tcp: bool) -> HashMap<String, rbac::Policy> {
    let name = |rule: usize| format!("ns[{}]-policy[{}]-rule[{rule}]", policy.namespace, policy.name);
    if policy.spec.rules.is_empty() {
        // Nothing matches: an ALLOW policy without rules allows nobody.
        return HashMap::from([(name(0), never())]);
    }
    let context = Context { config, tcp, drop_uncheckable: action != Action::Allow };
    let rules = policy.spec.rules.iter().enumerate();
    // An ALLOW rule that cannot be checked here allows nothing.
    rules.filter_map(|(at, rule)| Some((name(at), translate_rule(context, &policy.namespace, rule).ok()?))).collect()
}

/// Any of `from`, any of `to`, all of `when`.
fn translate_rule(context: Context<'_>, namespace: &str, rule: &Rule) -> Result<rbac::Policy, NotCheckable> {
    let when: Vec<Condition> = rule.when.iter().filter_map(|when| condition_of(when, namespace)).collect();
    let (about_source, about_request): (Vec<_>, Vec<_>) = when.into_iter().partition(Condition::is_about_the_source);
    let sources: Vec<Vec<Condition>> = rule
        .from
        .iter()
        .map(|from| from.source.as_ref().map_or_else(Vec::new, |source| source_conditions(source, namespace)))
        .collect();
    let operations: Vec<Vec<Condition>> =
        rule.to.iter().map(|to| to.operation.as_ref().map_or_else(Vec::new, operation_conditions)).collect();
    let principals = alternatives(sources)
        .map(|own| all_principals(context, own.iter().chain(&about_source)))
        .collect::<Result<_, _>>()?;
    let permissions = alternatives(operations)
        .map(|own| all_permissions(context, own.iter().chain(&about_request)))
        .collect::<Result<_, _>>()?;
    Ok(rbac::Policy { permissions, principals, ..rbac::Policy::default() })
}

/// No alternatives: one without conditions.
fn alternatives(lists: Vec<Vec<Condition>>) -> impl Iterator<Item = Vec<Condition>> {
    let lists = if lists.is_empty() { vec![Vec::new()] } else { lists };
    lists.into_iter()
}

fn all_principals<'a>(
    context: Context<'_>,
    conditions: impl Iterator<Item = &'a Condition>,
) -> Result<rbac::Principal, NotCheckable> {
    let mut ids = Vec::new();
    for condition in conditions {
        ids.extend(condition.principals(context)?);
    }
    if ids.is_empty() {
        ids.push(principal(Identifier::Any(true)));
    }
    Ok(principal(Identifier::AndIds(rbac::principal::Set { ids })))
}

fn all_permissions<'a>(
    context: Context<'_>,
    conditions: impl Iterator<Item = &'a Condition>,
) -> Result<rbac::Permission, NotCheckable> {
    let mut rules = Vec::new();
    for condition in conditions {
        rules.extend(condition.permissions(context)?);
    }
    if rules.is_empty() {
        rules.push(permission(PermissionRule::Any(true)));
    }
    Ok(permission(PermissionRule::AndRules(rbac::permission::Set { rules })))
}

/// Matches no request.
fn never() -> rbac::Policy {
    let nothing = permission(PermissionRule::NotRule(Box::new(permission(PermissionRule::Any(true)))));
    let nobody = principal(Identifier::NotId(Box::new(principal(Identifier::Any(true)))));
    rbac::Policy { permissions: vec![nothing], principals: vec![nobody], ..rbac::Policy::default() }
}

fn source_conditions(source: &Source, namespace: &str) -> Vec<Condition> {
    let account = Attribute::ServiceAccount { namespace: namespace.to_owned() };
    [
        Condition::new(Attribute::Principal, &source.principals, &source.not_principals),
        Condition::new(Attribute::RequestPrincipal, &source.request_principals, &source.not_request_principals),
        Condition::new(account, &source.service_accounts, &source.not_service_accounts),
        Condition::new(Attribute::TrustDomain, &source.trust_domains, &source.not_trust_domains),
        Condition::new(Attribute::Namespace, &source.namespaces, &source.not_namespaces),
        Condition::new(Attribute::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        Condition::new(Attribute::SourceIp, &source.ip_blocks, &source.not_ip_blocks),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn operation_conditions(operation: &Operation) -> Vec<Condition> {
    [
        Condition::new(Attribute::Host, &operation.hosts, &operation.not_hosts),
        Condition::new(Attribute::Method, &operation.methods, &operation.not_methods),
        Condition::new(Attribute::Path, &operation.paths, &operation.not_paths),
        Condition::new(Attribute::DestinationPort, &operation.ports, &operation.not_ports),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One element of `when`.
fn condition_of(when: &When, namespace: &str) -> Option<Condition> {
    let attribute = match when.key.as_str() {
        "source.principal" => Attribute::Principal,
        "source.namespace" => Attribute::Namespace,
        "source.serviceAccount" => Attribute::ServiceAccount { namespace: namespace.to_owned() },
        "source.trustDomain" => Attribute::TrustDomain,
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::ServerName,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::Claim(vec!["aud".to_owned()]),
        "request.auth.presenter" => Attribute::Claim(vec!["azp".to_owned()]),
        key => match key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
            Some(header) if !header.is_empty() => Attribute::RequestHeader(header.to_owned()),
            _ => nested(key).unwrap_or(Attribute::Unknown),
        },
    };
    Condition::new(attribute, &when.values, &when.not_values)
}

/// `request.auth.claims[a][b]`, or `experimental.envoy.filters.a.b[c]`.
fn nested(key: &str) -> Option<Attribute> {
    let (name, rest) = key.split_once('[')?;
    let rest = rest.strip_suffix(']')?;
    if name == "request.auth.claims" {
        let path: Vec<String> = rest.split("][").map(str::to_owned).collect();
        return path
            .iter()
            .all(|step| !step.is_empty() && !step.contains(['[', ']']))
            .then_some(Attribute::Claim(path));
    }
    let filter = name.strip_prefix("experimental.").filter(|filter| filter.starts_with("envoy.filters."))?;
    Some(Attribute::Metadata { filter: filter.to_owned(), key: rest.to_owned() })
}

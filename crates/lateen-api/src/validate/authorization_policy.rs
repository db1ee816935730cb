//! Rules for `AuthorizationPolicy`.

use super::check::Check;
use super::{metadata, names};
use crate::meta::ObjectMeta;
use crate::security::AuthorizationPolicy;
use crate::security::authorization_policy::{Action, Condition, Operation, Rule, Source};

pub(super) fn check(check: &mut Check<'_>, metadata: &ObjectMeta, spec: &AuthorizationPolicy) {
    dry_run(check, metadata, spec.action);
    metadata::targets(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.rules.is_empty() && matches!(spec.action, Action::Deny | Action::Custom) {
        let word = word(spec.action);
        let help = "`rules: [{}]` fits every request";
        check.error_help("spec.rules", format!("the action {word} without rules never has an effect"), help);
    }
    match (&spec.provider, spec.action) {
        (Some(provider), Action::Custom) if provider.name.is_empty() => {
            check.error("spec.provider.name", "`name` is required and missing");
        }
        (None, Action::Custom) => check.error("spec.provider", "the action CUSTOM needs `provider.name`"),
        (Some(_), action) if action != Action::Custom => {
            check.error("spec.provider", format!("the action {} takes no provider", word(action)));
        }
        _ => {}
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        check_rule(check, &format!("spec.rules[{index}]"), rule, spec.action);
    }
}

/// What a policy would do can be tried where it would allow or deny.
const DRY_RUN: &str = "istio.io/dry-run";

fn dry_run(check: &mut Check<'_>, metadata: &ObjectMeta, action: Action) {
    let Some(value) = metadata.annotations.get(DRY_RUN) else { return };
    let field = format!("metadata.annotations.{DRY_RUN}");
    if value != "true" && value != "false" {
        check.error(field, format!("`{value}` is neither `true` nor `false`"));
    } else if value == "true" && !matches!(action, Action::Allow | Action::Deny) {
        check.error(field, format!("the action {} cannot be tried, only ALLOW and DENY", word(action)));
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    }
}

fn check_rule(check: &mut Check<'_>, field: &str, rule: &Rule, action: Action) {
    for (index, from) in rule.from.iter().enumerate() {
        let place = format!("{field}.from[{index}].source");
        match &from.source {
            Some(source) if *source != Source::default() => check_source(check, &place, source, action),
            _ => check.error(place, "`source` is required and must not be empty"),
        }
    }
    for (index, to) in rule.to.iter().enumerate() {
        let place = format!("{field}.to[{index}].operation");
        match &to.operation {
            Some(operation) if *operation != Operation::default() => check_operation(check, &place, operation),
            _ => check.error(place, "`operation` is required and must not be empty"),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        check_condition(check, &format!("{field}.when[{index}]"), condition, action);
    }
    if action == Action::Deny && denies_all_tcp(rule) {
        check.warn(
            field,
            "the rule has only HTTP attributes, so it denies everything on TCP ports; add `ports` to say which are meant",
        );
    }
}

/// On TCP ports HTTP conditions of a DENY rule are dropped, so that the rule gets wider.
fn denies_all_tcp(rule: &Rule) -> bool {
    let sources: Vec<&Source> = rule.from.iter().filter_map(|from| from.source.as_ref()).collect();
    let operations: Vec<&Operation> = rule.to.iter().filter_map(|to| to.operation.as_ref()).collect();
    let tcp_source = |source: &&Source| {
        **source
            != Source {
                request_principals: source.request_principals.clone(),
                not_request_principals: source.not_request_principals.clone(),
                ..Source::default()
            }
    };
    let tcp_operation = |operation: &&Operation| !operation.ports.is_empty() || !operation.not_ports.is_empty();
    match (sources.is_empty(), operations.is_empty()) {
        (true, true) => false,
        (_, false) => !operations.iter().any(tcp_operation),
        (false, true) => !sources.iter().any(tcp_source),
    }
}

fn check_source(check: &mut Check<'_>, field: &str, source: &Source, action: Action) {
    let lists = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (name, list) in lists {
        no_empty(check, &format!("{field}.{name}"), list);
        let identity = name.to_lowercase().ends_with("principals") || name.to_lowercase().ends_with("namespaces");
        if identity && action == Action::Custom && !list.is_empty() {
            check.error(format!("{field}.{name}"), format!("the action CUSTOM takes no `{name}`"));
        }
    }
    for (name, list) in &lists[10..] {
        for (index, block) in list.iter().enumerate() {
            check.rule(format!("{field}.{name}[{index}]"), names::subnet(block));
        }
    }
    service_accounts(check, field, source);
}

/// `name` or `namespace/name`, at most 16, and not beside what they would contradict.
fn service_accounts(check: &mut Check<'_>, field: &str, source: &Source) {
    const MOST: usize = 16;
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    for (name, list) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        if list.is_empty() {
            continue;
        }
        if others.iter().any(|other| !other.is_empty()) {
            let message = format!("`{name}` may not stand beside principals or namespaces");
            check.error(format!("{field}.{name}"), message);
        }
        if list.len() > MOST {
            check.error(format!("{field}.{name}"), format!("{} service accounts; at most {MOST}", list.len()));
        }
        for (index, entry) in list.iter().enumerate() {
            if entry.contains('*') || entry.matches('/').count() > 1 || entry.split('/').any(str::is_empty) {
                let message = format!("`{entry}` is not a service account: <name> or <namespace>/<name>");
                check.error(format!("{field}.{name}[{index}]"), message);
            }
        }
    }
}

fn check_operation(check: &mut Check<'_>, field: &str, operation: &Operation) {
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
    ];
    for (name, list) in lists {
        no_empty(check, &format!("{field}.{name}"), list);
    }
    for (name, list) in &lists[4..6] {
        for (index, path) in list.iter().enumerate() {
            check.rule(format!("{field}.{name}[{index}]"), path_template(path));
        }
    }
    for (name, list) in &lists[6..] {
        for (index, port) in list.iter().enumerate() {
            check.rule(format!("{field}.{name}[{index}]"), port_text(port));
        }
    }
}

fn no_empty(check: &mut Check<'_>, field: &str, list: &[String]) {
    for (index, _) in list.iter().enumerate().filter(|(_, entry)| entry.is_empty()) {
        check.error(format!("{field}[{index}]"), "the entry is empty");
    }
}

fn port_text(text: &str) -> names::Ruling {
    match text.parse::<u32>() {
        Ok(number) => names::port(number),
        Err(_) => Err(format!("`{text}` is not a port number")),
    }
}

/// A path with `{*}` (one segment) or `{**}` (any number, once, nothing after it that is variable) is a template and takes
/// no other wildcard.
fn path_template(path: &str) -> names::Ruling {
    if !path.contains("{*}") && !path.contains("{**}") {
        return Ok(());
    }
    let wrong = |why: &str| Err(format!("`{path}` is not a path template: {why}"));
    let segments: Vec<&str> = path.split('/').collect();
    let anything = segments.iter().position(|segment| *segment == "{**}");
    if path.matches("{**}").count() > 1 {
        return wrong("`{**}` may be there once only");
    }
    if anything.is_some_and(|at| segments[at + 1..].contains(&"{*}")) {
        return wrong("`{*}` may not come after `{**}`");
    }
    for segment in segments {
        if segment != "{*}" && segment != "{**}" && segment.contains(['{', '}', '*']) {
            return wrong("`{*}` and `{**}` must be whole segments, and no other wildcard may stand beside them");
        }
    }
    Ok(())
}

/// The attributes of `when` that are not followed by a name.
const KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Those that are, in brackets.
const BRACKETED: &[&str] = &["request.headers", "request.auth.claims"];

fn check_condition(check: &mut Check<'_>, field: &str, condition: &Condition, action: Action) {
    let key = condition.key.as_str();
    let bracketed = BRACKETED.iter().any(|prefix| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2)
    });
    if key.is_empty() {
        check.error(format!("{field}.key"), "`key` is required and missing");
    } else if !KEYS.contains(&key) && !bracketed && !key.starts_with("experimental.envoy.filters.") {
        check.error(format!("{field}.key"), format!("`{key}` is not an attribute that conditions can be about"));
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        check.error(field, format!("the condition on `{key}` needs one of `values` and `notValues`"));
    }
    if action == Action::Custom
        && (matches!(key, "source.namespace" | "source.principal") || key.starts_with("request.auth."))
    {
        check.error(format!("{field}.key"), format!("the action CUSTOM takes no condition on `{key}`"));
    }
    for (name, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        for (index, value) in list.iter().enumerate() {
            let place = format!("{field}.{name}[{index}]");
            match key {
                "source.ip" | "remote.ip" | "destination.ip" => check.rule(place, names::subnet(value)),
                "destination.port" => check.rule(place, port_text(value)),
                _ if value.is_empty() => check.error(place, "the entry is empty"),
                _ => {}
            }
        }
    }
}

//! What Istio honours and Lateen does not: said aloud, with what happens in its place.

use lateen_api::Resource;
use lateen_api::networking::destination_rule::{TlsMode, TrafficPolicy};
use lateen_api::networking::service_entry::Resolution;
use lateen_api::networking::sidecar::CaptureMode;
use lateen_api::networking::{DestinationRule, Gateway, ServiceEntry, Sidecar};
use lateen_api::security::AuthorizationPolicy;
use lateen_api::security::authorization_policy::Action;

use super::Findings;
use super::codes::NOT_HONOURED;
use crate::inputs::Inputs;
use crate::routing::gateway::passes_through;

pub(super) fn check(inputs: &Inputs, findings: &mut Findings) {
    inputs.gateways.iter().for_each(|resource| gateway(resource, findings));
    inputs.destination_rules.iter().for_each(|resource| destination_rule(resource, findings));
    inputs.service_entries.iter().for_each(|resource| service_entry(resource, findings));
    inputs.sidecars.iter().for_each(|resource| sidecar(resource, findings));
    inputs.authorization_policies.iter().for_each(|resource| authorization(resource, findings));
}

fn gateway(resource: &Resource<Gateway>, findings: &mut Findings) {
    for (at, server) in resource.spec.servers.iter().enumerate() {
        let Some(tls) = &server.tls else { continue };
        let plaintext =
            matches!(server.port.protocol.to_ascii_uppercase().as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
        if !plaintext && !passes_through(tls.mode) {
            let message = "gateways do not end TLS yet; this server is not opened";
            findings.add(resource, NOT_HONOURED, &format!("spec.servers[{at}].tls.mode"), message, None);
        }
    }
}

fn destination_rule(resource: &Resource<DestinationRule>, findings: &mut Findings) {
    let spec = &resource.spec;
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(resource, policy, "spec.trafficPolicy", findings);
    }
    for (at, subset) in spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(resource, policy, &format!("spec.subsets[{at}].trafficPolicy"), findings);
        }
    }
}

fn traffic_policy(resource: &Resource<DestinationRule>, policy: &TrafficPolicy, field: &str, findings: &mut Findings) {
    let mut say =
        |name: &str, message: &str| findings.add(resource, NOT_HONOURED, &format!("{field}.{name}"), message, None);
    if policy.tunnel.is_some() {
        say("tunnel", "connections are not tunnelled; they go straight to the destination");
    }
    if policy.proxy_protocol.is_some() {
        say("proxyProtocol", "no PROXY header is sent");
    }
    if let Some(balancer) = &policy.load_balancer {
        if balancer.locality_lb_setting.is_some() {
            say("loadBalancer.localityLbSetting", "endpoints are chosen without regard to their locality");
        }
        if balancer.zone_aware_lb_setting.is_some() {
            say("loadBalancer.zoneAwareLbSetting", "endpoints are chosen without regard to their zone");
        }
    }
    if let Some(tls) = &policy.tls
        && matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual)
        && !tls.credential_name.is_empty()
    {
        say("tls.credentialName", "secrets are not read yet; use certificate files");
    }
}

fn service_entry(resource: &Resource<ServiceEntry>, findings: &mut Findings) {
    if resource.spec.resolution == Resolution::DynamicDns {
        let message = "names are not resolved on demand; traffic is that to an unknown host";
        findings.add(resource, NOT_HONOURED, "spec.resolution", message, None);
    }
}

fn sidecar(resource: &Resource<Sidecar>, findings: &mut Findings) {
    if !resource.spec.ingress.is_empty() {
        let message = "inbound listeners follow the services of the workload";
        findings.add(resource, NOT_HONOURED, "spec.ingress", message, None);
    }
    if resource.spec.inbound_connection_pool.is_some() {
        let message = "inbound connections are limited by the destination rule of the service only";
        findings.add(resource, NOT_HONOURED, "spec.inboundConnectionPool", message, None);
    }
    let proxy = resource.spec.outbound_traffic_policy.as_ref().and_then(|policy| policy.egress_proxy.as_ref());
    if proxy.is_some() {
        let message = "unknown traffic goes to where it was going, not to a proxy";
        findings.add(resource, NOT_HONOURED, "spec.outboundTrafficPolicy.egressProxy", message, None);
    }
    for (at, listener) in resource.spec.egress.iter().enumerate() {
        let own = listener.port.is_some() || !listener.bind.is_empty() || listener.capture_mode == CaptureMode::None;
        if own {
            let message = "the hosts of this listener are imported; it gets no port or address of its own";
            findings.add(resource, NOT_HONOURED, &format!("spec.egress[{at}]"), message, None);
        }
    }
}

fn authorization(resource: &Resource<AuthorizationPolicy>, findings: &mut Findings) {
    let spec = &resource.spec;
    match spec.action {
        Action::Custom => {
            let message = "external authorizers are not asked yet; what this policy matches is denied";
            findings.add(resource, NOT_HONOURED, "spec.action", message, None);
        }
        Action::Audit => {
            findings.add(resource, NOT_HONOURED, "spec.action", "nothing is logged for audit policies", None);
        }
        Action::Allow | Action::Deny => {}
    }
    let consequence = match spec.action {
        Action::Allow => "a rule with it allows nobody",
        Action::Deny | Action::Audit | Action::Custom => "a rule with it denies regardless of it",
    };
    for (at, rule) in spec.rules.iter().enumerate() {
        for (from, source) in rule.from.iter().enumerate().filter_map(|(at, from)| Some((at, from.source.as_ref()?))) {
            if !source.request_principals.is_empty() || !source.not_request_principals.is_empty() {
                let field = format!("spec.rules[{at}].from[{from}].source.requestPrincipals");
                let message = format!("tokens are not checked yet; {consequence}");
                findings.add(resource, NOT_HONOURED, &field, message, None);
            }
        }
        for (when, condition) in rule.when.iter().enumerate() {
            let token = condition.key.starts_with("request.auth.");
            if token || condition.key.starts_with("experimental.envoy.filters.") {
                let what = if token { "tokens are not checked yet" } else { "other filters' metadata is not read" };
                let field = format!("spec.rules[{at}].when[{when}].key");
                findings.add(resource, NOT_HONOURED, &field, format!("{what}; {consequence}"), None);
            }
        }
    }
}

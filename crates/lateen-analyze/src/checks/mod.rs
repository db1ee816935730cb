//! The analyzers, by Istio's names where it has them.

mod annotations;
mod authorization;
mod conditions;
mod deployments;
mod deprecation;
mod destination_rules;
mod envoy_filters;
mod external_control_plane;
mod gateway_api;
mod gateways;
mod injection;
mod keys;
mod mesh_networks;
mod policies;
mod ports;
mod proxy_images;
mod retries;
mod routes;
mod service_entries;
mod sidecars;
mod telemetry;
mod virtual_services;
mod webhooks;

use crate::report::Report;
use crate::world::World;

/// Somebody who looks for one sort of trouble.
#[derive(Debug, Clone, Copy)]
pub struct Analyzer {
    pub name: &'static str,
    pub description: &'static str,
    /// Looked for only where it is asked for by name.
    pub by_request: bool,
    run: Option<fn(&World, &mut Report)>,
}

const fn texts(name: &'static str, description: &'static str, run: fn(&World, &mut Report)) -> Analyzer {
    Analyzer { name, description, by_request: false, run: Some(run) }
}

/// One whose findings come from parsing or from the mesh.
const fn elsewhere(name: &'static str, description: &'static str) -> Analyzer {
    Analyzer { name, description, by_request: false, run: None }
}

/// All of them, by name.
pub fn analyzers() -> &'static [Analyzer] {
    ANALYZERS
}

/// Runs all but those that are looked for by request, and of these the ones that are named.
pub(crate) fn run(world: &World, requested: &[&str], report: &mut Report) {
    for analyzer in ANALYZERS.iter().filter(|it| !it.by_request || requested.contains(&it.name)) {
        if let Some(run) = analyzer.run {
            report.analyzer = analyzer.name;
            run(world, report);
        }
    }
}

#[rustfmt::skip]
const ANALYZERS: &[Analyzer] = &[
    Analyzer { by_request: true, ..texts("annotations.AlphaAnalyzer", "Annotations of which Istio makes no promises yet", annotations::alpha) },
    texts("annotations.K8sAnalyzer", "Annotations of Istio that are unknown, on the wrong kind, out of date or of a wrong value", annotations::check),
    texts("applicationUID.Analyzer", "Applications that run as the proxy's user", deployments::user),
    texts("auth.AuthorizationPoliciesAnalyzer", "Policies that select no workload or name a namespace that does not exist", authorization::check),
    texts("authn.BlockedCIDRsAnalyzer", "Control planes that fetch keys from anywhere", keys::check),
    texts("conditions.ConditionAnalyzer", "Conditions by which a controller says no", conditions::check),
    texts("deployment.MultiServiceAnalyzer", "Services that disagree about the ports of a Deployment", deployments::services),
    texts("deprecation.DeprecationAnalyzer", "Fields and kinds that are out of date", deprecation::check),
    texts("destinationrule.CaCertificateAnalyzer", "TLS without roots to trust", destination_rules::roots),
    elsewhere("destinationrule.SubsetSelectPodAnalyzer", "Rules for unknown hosts, and subsets that select no pod"),
    texts("envoyfilter.EnvoyPatchAnalyzer", "Patches that depend on their order, or do nothing", envoy_filters::check),
    texts("externalcontrolplane.ExternalControlPlaneAnalyzer", "Webhooks that do not say where their control plane is", external_control_plane::check),
    elsewhere("gateway.CertificateAnalyzer", "Certificates that several Gateways show"),
    elsewhere("gateway.ConflictingGatewayAnalyzer", "Gateways that want the same port and host"),
    texts("gateway.IngressGatewayPortAnalyzer", "Gateways without pods, and ports that no Service leads to", gateways::ports),
    texts("gateway.SecretAnalyzer", "Gateways whose Secret is missing or holds no certificate", gateways::secrets),
    texts("injection.Analyzer", "Namespaces and pods without sidecars", injection::check),
    texts("injection.ImageAnalyzer", "Pods with another proxy than would be injected now", proxy_images::mismatch),
    texts("injection.ImageAutoAnalyzer", "Images that are left to an injector which does not see them", proxy_images::auto),
    texts("k8sgateway.CRDVersionAnalyzer", "CRDs of the Gateway API that are too old", gateway_api::versions),
    texts("k8sgateway.SelectorAnalyzer", "Policies that select pods of a Kubernetes Gateway by labels", gateway_api::selectors),
    texts("lateen.EnvoyFilterAnalyzer", "EnvoyFilters that a kind of its own replaces", envoy_filters::replaceable),
    elsewhere("lateen.MeshAnalyzer", "What only the whole mesh shows: hidden subsets, rules that reach into other namespaces, settings without effect"),
    texts("lateen.PolicyAnalyzer", "Policies that deny everything by accident, and paths that nothing has", policies::check),
    texts("lateen.RetryAnalyzer", "Retries that multiply, and time-outs that end before them", retries::check),
    texts("lateen.SidecarAnalyzer", "Sidecars that hide what rules of their namespace route to", sidecars::check),
    texts("meshnetworks.MeshNetworksAnalyzer", "Networks of unknown clusters", mesh_networks::check),
    elsewhere("schema.ValidationAnalyzer", "What breaks a rule of its kind"),
    texts("schema.ValidationAnalyzer.VirtualService", "Rules and matches that nothing reaches", routes::check),
    texts("service.PortNameAnalyzer", "Ports that do not say their protocol", ports::check),
    texts("serviceentry.Analyzer", "TCP ports of ServiceEntries without addresses", service_entries::addresses),
    texts("serviceentry.ConflictingServiceEntryProtocolAnalyzer", "ServiceEntries that disagree about a protocol", service_entries::conflicts),
    texts("sidecar.SelectorAnalyzer", "Sidecars that select no pod, the same ones, or such as have none", sidecars::ambient),
    texts("telemetry.DefaultSelectorAnalyzer", "Several Telemetries for a whole namespace", telemetry::namespace_wide),
    texts("telemetry.LightstepAnalyzer", "The tracing provider Lightstep", telemetry::lightstep),
    texts("telemetry.ProviderAnalyzer", "Access logs without a provider", telemetry::providers),
    texts("telemetry.SelectorAnalyzer", "Telemetries that select no pod, or the same ones", telemetry::selectors),
    texts("virtualservice.ConflictingMeshGatewayHostsAnalyzer", "VirtualServices of the mesh with the same host", virtual_services::hosts),
    texts("virtualservice.DestinationHostAnalyzer", "Destinations that are no service, and subsets that requests from a gateway do not go to", virtual_services::ingress),
    elsewhere("virtualservice.DestinationRuleAnalyzer", "Subsets that no DestinationRule has"),
    texts("virtualservice.GatewayAnalyzer", "Gateways that do not exist, or have none of the hosts", virtual_services::gateways),
    texts("virtualservice.JWTClaimRouteAnalyzer", "Routes by claims of tokens that nobody checks", virtual_services::claims),
    texts("webhook.Analyzer", "Injection webhooks that overlap or lead nowhere", webhooks::check),
];

#[cfg(test)]
mod tests {
    use super::ANALYZERS;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(ANALYZERS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}

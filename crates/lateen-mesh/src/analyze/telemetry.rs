//! Telemetry objects that tell nobody: providers that are not there, are of another kind, or whose service is unknown.

use lateen_api::Resource;
use lateen_api::extension_providers::ExtensionProvider;
use lateen_api::telemetry::Telemetry;
use lateen_api::telemetry::settings::ProviderRef;

use super::codes::INEFFECTIVE_SETTING;
use super::{Findings, did_you_mean};
use crate::inputs::Inputs;
use crate::mesh::Mesh;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for telemetry in inputs.telemetries.iter() {
        let mut of = |field: &str, providers: &[ProviderRef], fits: fn(&ExtensionProvider) -> bool, what: &str| {
            for (index, provider) in providers.iter().enumerate() {
                let field = format!("{field}.providers[{index}].name");
                one(telemetry, &field, (&provider.name, fits, what), mesh, findings);
            }
        };
        for (index, tracing) in telemetry.spec.tracing.iter().enumerate() {
            of(&format!("spec.tracing[{index}]"), &tracing.providers, ExtensionProvider::traces, "takes no spans");
        }
        for (index, metrics) in telemetry.spec.metrics.iter().enumerate() {
            of(&format!("spec.metrics[{index}]"), &metrics.providers, ExtensionProvider::counts, "takes no metrics");
        }
        for (index, logging) in telemetry.spec.access_logging.iter().enumerate() {
            let field = format!("spec.accessLogging[{index}]");
            of(&field, &logging.providers, ExtensionProvider::logs, "keeps no access logs");
        }
    }
}

/// A provider's name, what it must be, and what is said of one that is not.
type Wanted<'a> = (&'a str, fn(&ExtensionProvider) -> bool, &'a str);

fn one(
    telemetry: &Resource<Telemetry>,
    field: &str,
    (name, fits, what): Wanted<'_>,
    mesh: &Mesh,
    findings: &mut Findings,
) {
    let Some(provider) = mesh.config().provider(name) else {
        let known = mesh.config().extension_providers.iter().map(|provider| provider.name.as_str());
        let message = format!("the mesh config has no extension provider `{name}`: nothing goes to it");
        return findings.add(telemetry, INEFFECTIVE_SETTING, field, message, did_you_mean(name, known));
    };
    if !fits(provider) {
        let message = format!("the extension provider `{name}` {what} here: nothing goes to it");
        return findings.add(telemetry, INEFFECTIVE_SETTING, field, message, None);
    }
    let Some((wanted, port)) = provider.collector() else { return };
    let (namespace, host) = wanted.split_once('/').map_or((None, wanted), |(namespace, host)| (Some(namespace), host));
    let host = mesh.resolve_host(host, &mesh.config().root_namespace);
    let services = mesh.services_of_host(&host);
    let found = services.iter().find(|service| namespace.is_none_or(|namespace| namespace == &*service.namespace));
    let Some(service) = found else {
        let message =
            format!("the service `{wanted}` of the extension provider `{name}` is unknown: nothing goes to it");
        let help = did_you_mean(&host, mesh.services().iter().map(|service| &*service.host));
        return findings.add(telemetry, INEFFECTIVE_SETTING, field, message, help);
    };
    let of_service = u16::try_from(port).ok().and_then(|port| service.port(port));
    let by_grpc =
        provider.envoy_otel_als.is_some() || provider.opentelemetry.as_ref().is_some_and(|otel| otel.http.is_none());
    match of_service {
        None => {
            let message = format!(
                "the service `{}` of the extension provider `{name}` has no port {port}: nothing goes to it",
                service.host
            );
            findings.add(telemetry, INEFFECTIVE_SETTING, field, message, None);
        }
        Some(port) if by_grpc && !port.protocol.is_http2() => {
            let message = format!(
                "port {} of the service `{}` is not declared to speak gRPC, which the extension provider `{name}` is told by",
                port.number, service.host
            );
            let help = Some("name the port `grpc` or begin its name with `grpc-`".to_owned());
            findings.add(telemetry, INEFFECTIVE_SETTING, field, message, help);
        }
        Some(_) => {}
    }
}

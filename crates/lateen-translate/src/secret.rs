//! Secrets of a proxy: those that its own servers name, and rules for what it calls, from its own namespace, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use lateen_api::kubernetes::Secret;
use lateen_api::networking::destination_rule::{ClientTls, TlsMode};
use lateen_api::networking::gateway::ServerTls;
use lateen_mesh::gateway_api::Credential;
use lateen_mesh::{DestinationRule, Mesh, ProxyKind, Scope};
use tls::secret::Type;

use crate::Named;
use crate::tls::TRUSTED_ROOTS;
use crate::view::{ProxyView, View};
use crate::wire;

/// What a resource's name begins with; the Secret's own name follows.
const SCHEME: &str = "kubernetes://";

/// Behind the name of a Secret: the roots for client certificates, from a Secret of that very name or else from the one
/// without it (Istio).
const ROOTS: &str = "-cacert";

/// The resource that holds a certificate and its key.
pub(crate) fn certificate_name(credential: &str) -> String {
    if credential.contains("://") {
        // It says itself where it is.
        return credential.to_owned();
    }
    format!("{SCHEME}{credential}")
}

/// The resource that holds the roots for the other side.
pub(crate) fn roots_name(credential: &str) -> String {
    if credential.contains("://") {
        return format!("{}{ROOTS}", credential.strip_suffix(ROOTS).unwrap_or(credential));
    }
    format!("{SCHEME}{credential}{ROOTS}")
}

/// The TLS settings of the places where a proxy ends TLS: a gateway's servers, the ports that a Sidecar opens. What is named in
/// another namespace is for those of the Gateway API, where it has been found to be granted.
pub(crate) fn settings(mesh: &Mesh, proxy: &ProxyView) -> Vec<ServerTls> {
    if proxy.kind == ProxyKind::Gateway {
        let merged = mesh.gateway_of(&proxy.workload);
        let servers = merged.listeners.iter().flat_map(|listener| &listener.servers);
        let ending = servers.filter(|server| server.ends_tls());
        let settings =
            ending.filter_map(|server| Some((server.spec.tls.clone()?, server.origin.kind.is_gateway_api())));
        return settings.filter(|(tls, granted)| *granted || !names_elsewhere(tls)).map(|(tls, _)| tls).collect();
    }
    let ports = mesh.inbound_ports(&proxy.workload).into_iter();
    ports.filter_map(|port| port.ingress?.tls.clone()).filter(|tls| !names_elsewhere(tls)).collect()
}

fn names_elsewhere(tls: &ServerTls) -> bool {
    tls.credentials().chain(tls.client_roots()).any(|name| !matches!(Credential::parse(name), Credential::Own(_)))
}

/// Whether a proxy has the Secret that a DestinationRule names for TLS to servers: a gateway has, and a sidecar that the rule
/// selects (Istio). All others do not, lest everybody who may call a service be given the key.
pub(crate) fn is_given_to(kind: ProxyKind, rule: &DestinationRule, credential: &str) -> bool {
    // There is no key in a ConfigMap, and whose roots are nobody's needs to be given nothing.
    let is_secret = matches!(Credential::parse(credential), Credential::Own(_) | Credential::Secret { .. });
    kind == ProxyKind::Gateway || rule.selector.is_some() || !is_secret
}

/// The TLS settings of rules for clients by which the proxy has Secrets.
pub(crate) fn client_settings<'a>(scope: &'a Scope, proxy: &'a ProxyView) -> impl Iterator<Item = &'a ClientTls> {
    let rules = scope.rules_with_credentials(&proxy.workload.labels);
    let is_granted = |rule: &DestinationRule, tls: &ClientTls| match Credential::parse(&tls.credential_name) {
        Credential::Own(_) => true,
        // Of a BackendTLSPolicy, and beside it.
        Credential::ConfigMap { .. } => rule.origins.iter().any(|origin| origin.kind.is_gateway_api()),
        Credential::Secret { .. } | Credential::Nowhere => false,
    };
    rules.flat_map(move |rule| {
        rule.credentials()
            .filter(move |tls| is_granted(rule, tls))
            .filter(|tls| tls.credential().is_some_and(|name| is_given_to(proxy.kind, rule, name)))
    })
}

/// What the proxy's servers name, and rules for what it calls, as far as it exists.
pub(crate) fn all(view: &View<'_>) -> Vec<Arc<Named>> {
    let settings = settings(view.mesh, view.proxy);
    let (mut certificates, mut roots) = (BTreeSet::new(), BTreeSet::new());
    for settings in &settings {
        certificates.extend(settings.credentials());
        roots.extend(settings.client_roots().filter(|_| settings.asks_clients()));
    }
    for tls in client_settings(view.scope, view.proxy) {
        certificates.extend(tls.credential().filter(|_| tls.mode == TlsMode::Mutual));
        roots.extend(tls.credential().filter(|_| tls.insecure_skip_verify != Some(true)));
    }
    let namespace = &view.proxy.workload.namespace;
    let certificates = certificates.into_iter().filter_map(|name| {
        let content = match Credential::parse(name) {
            Credential::Own(name) => certificate(view.mesh.secret(namespace, name)?)?,
            Credential::Secret { namespace, name } => certificate(view.mesh.secret(namespace, name)?)?,
            Credential::ConfigMap { .. } | Credential::Nowhere => return None,
        };
        Some(named(certificate_name(name), Type::TlsCertificate(content)))
    });
    let roots_in = |namespace: &str, name: &str| {
        let of_roots = view.mesh.secret(namespace, &format!("{name}{ROOTS}"));
        let secret = of_roots.or_else(|| view.mesh.secret(namespace, name))?;
        trusted(|key| secret.value(key))
    };
    let roots = roots.into_iter().filter_map(|name| {
        let content = match Credential::parse(name) {
            Credential::Own(name) => roots_in(namespace, name)?,
            Credential::Secret { namespace, name } => roots_in(namespace, name)?,
            Credential::ConfigMap { namespace, name } => {
                let map = view.mesh.config_map(namespace, name)?;
                trusted(|key| map.data.get(key).map(|text| text.clone().into_bytes()))?
            }
            Credential::Nowhere => return None,
        };
        Some(named(roots_name(name), Type::ValidationContext(content)))
    });
    certificates.chain(roots).collect()
}

/// Whom the workloads of the mesh trust: roots in PEM by trust domain, and revocation lists.
///
/// A domain's roots vouch for its workloads alone, so the proxy checks by `envoy.tls.cert_validator.spiffe`.
pub fn mesh_roots<'a>(domains: impl Iterator<Item = (&'a str, String)>, revocation: Option<String>) -> Arc<Named> {
    let domain = |(name, pem): (&str, String)| tls::spiffe_cert_validator_config::TrustDomain {
        name: name.to_owned(),
        trust_bundle: Some(inline(pem.into_bytes())),
        ..Default::default()
    };
    let validator = tls::SpiffeCertValidatorConfig {
        trust_domains: domains.map(domain).collect(),
        ..tls::SpiffeCertValidatorConfig::default()
    };
    let validator = core::TypedExtensionConfig {
        name: "envoy.tls.cert_validator.spiffe".to_owned(),
        typed_config: Some(wire::pack(&validator)),
    };
    let content = tls::CertificateValidationContext {
        custom_validator_config: Some(validator),
        crl: revocation.map(|lists| inline(lists.into_bytes())),
        ..tls::CertificateValidationContext::default()
    };
    named(TRUSTED_ROOTS.to_owned(), Type::ValidationContext(content))
}

fn named(name: String, content: Type) -> Arc<Named> {
    Arc::new(Named::new(&name, &tls::Secret { name: name.clone(), r#type: Some(content) }))
}

/// `tls.crt` and `tls.key`, or `cert` and `key` of a generic Secret.
fn certificate(secret: &Secret) -> Option<tls::TlsCertificate> {
    let [chain, key] = [["tls.crt", "tls.key"], ["cert", "key"]]
        .into_iter()
        .find_map(|[chain, key]| Some([secret.value(chain)?, secret.value(key)?]))?;
    Some(tls::TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..tls::TlsCertificate::default()
    })
}

/// `ca.crt` and `ca.crl`, or `cacert` and `crl` of a generic Secret; there need not be a revocation list.
fn trusted(value: impl Fn(&str) -> Option<Vec<u8>>) -> Option<tls::CertificateValidationContext> {
    let roots = ["ca.crt", "cacert"].into_iter().find_map(&value)?;
    let revoked = ["ca.crl", "crl"].into_iter().find_map(&value);
    Some(tls::CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        crl: revoked.map(inline),
        ..tls::CertificateValidationContext::default()
    })
}

fn inline(bytes: Vec<u8>) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes)),
        ..core::DataSource::default()
    }
}

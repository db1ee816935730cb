//! TLS of a listener: which certificates it presents, and what it asks of clients.

use lateen_api::gateway_api::gateway::{ListenerTls, TlsMode, Validation, ValidationMode};
use lateen_api::gateway_api::references::ObjectReference;
use lateen_api::kubernetes::pem;
use lateen_api::networking::gateway::{ServerTls, ServerTlsMode};

use super::condition::Fault;
use super::credential::{self, Held};
use super::listener::Owner;
use super::reference::{GroupKind, is_granted};
use crate::inputs::Inputs;

/// How a listener that ends TLS does it, in Istio's words.
const MODE: &str = "gateway.istio.io/tls-terminate-mode";
/// Which suites it takes below TLS 1.3.
const CIPHERS: &str = "gateway.istio.io/tls-cipher-suites";

/// So many certificates at most: one for each kind of key.
const CERTIFICATES: usize = 2;

/// Whether it is the roots for clients that are wrong: nobody could connect then.
pub(super) fn is_about_clients(fault: &Fault) -> bool {
    matches!(fault.reason, "InvalidCACertificateRef" | "InvalidCACertificateKind" | "RefNotPermitted")
}

/// The settings of the server, and what is wrong with them. `passes`: it is told by the name where a connection goes.
pub(super) fn settings(
    inputs: &Inputs,
    owner: Owner<'_>,
    wanted: &ListenerTls,
    clients: Option<&Validation>,
    passes: bool,
) -> (ServerTls, Option<Fault>) {
    let mut out = ServerTls::default();
    match wanted.mode.unwrap_or_default() {
        TlsMode::Passthrough if passes => out.mode = ServerTlsMode::AutoPassthrough,
        TlsMode::Passthrough => out.mode = ServerTlsMode::Passthrough,
        TlsMode::Terminate => match wanted.options.get(MODE).map(String::as_str) {
            Some("ISTIO_SIMPLE") => {
                out.mode = ServerTlsMode::Simple;
                credential::BUILT_IN.clone_into(&mut out.credential_name);
                return (out, None);
            }
            Some("ISTIO_MUTUAL") => {
                out.mode = ServerTlsMode::IstioMutual;
                return (out, None);
            }
            mode => {
                out.mode = named_mode(mode).unwrap_or(ServerTlsMode::Simple);
                let fault = certify(inputs, owner, wanted, &mut out)
                    .or_else(|| ask(inputs, owner, clients, named_mode(mode), &mut out));
                if fault.is_some() {
                    return (out, fault);
                }
            }
        },
    }
    if let Some(suites) = wanted.options.get(CIPHERS) {
        out.cipher_suites =
            suites.split(',').map(|suite| suite.trim().to_owned()).filter(|it| !it.is_empty()).collect();
    }
    (out, None)
}

fn named_mode(mode: Option<&str>) -> Option<ServerTlsMode> {
    match mode {
        Some("MUTUAL") => Some(ServerTlsMode::Mutual),
        Some("OPTIONAL_MUTUAL") => Some(ServerTlsMode::OptionalMutual),
        _ => None,
    }
}

/// Puts the certificates in. One that is missing or not permitted is a fault only if there is no other.
fn certify(inputs: &Inputs, owner: Owner<'_>, wanted: &ListenerTls, out: &mut ServerTls) -> Option<Fault> {
    let references = &wanted.certificate_refs;
    if references.len() > CERTIFICATES {
        return Some(Fault::new(
            "InvalidCertificateRef",
            format!("TLS mode can only support up to {CERTIFICATES} server certificates"),
        ));
    }
    let (mut names, mut fault) = (Vec::new(), None);
    for reference in references {
        match certificate(inputs, owner, reference) {
            Ok(name) => names.push(name),
            Err(wrong) => fault = Fault::and(fault, Some(wrong)),
        }
    }
    match names.len() {
        0 => return fault,
        1 => out.credential_name = names.remove(0),
        _ => out.credential_names = names,
    }
    None
}

fn certificate(inputs: &Inputs, owner: Owner<'_>, reference: &ObjectReference) -> Result<String, Fault> {
    let own = owner.key.namespace.as_str();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let to = (namespace, reference.name.as_str());
    // Whether there is such a Secret is not told to those who may not know.
    if namespace != own && !is_granted(inputs, owner.group_kind(), own, GroupKind::SECRET, to) {
        return Err(Fault::new(
            "RefNotPermitted",
            format!(
                "certificateRef {}/{namespace} not accessible to a Gateway in namespace \"{own}\" (missing a ReferenceGrant?)",
                reference.name
            ),
        ));
    }
    let (group, kind) = (reference.group.as_deref(), reference.kind.as_deref());
    let shown = shown(reference);
    let wrong =
        |why: String| Fault::new("InvalidCertificateRef", format!("invalid certificate reference {shown}, {why}"));
    if GroupKind::of(group, kind, GroupKind::SECRET) != GroupKind::SECRET {
        return Err(wrong("only secret is allowed".to_owned()));
    }
    let secret = credential::secret(inputs, namespace, &reference.name)
        .ok_or_else(|| wrong(format!("secret {namespace}/{} not found", reference.name)))?;
    let (chain, key) = credential::pair(&secret.spec).map_err(wrong)?;
    pem::check_pair(&chain, &key).map_err(|why| wrong(format!("the certificate is malformed: {why}")))?;
    Ok(credential::of_secret(namespace, &reference.name))
}

/// Puts in what clients must prove, which the Gateway says, in its own namespace, also of the listeners of sets. `mode`: what an option says of that.
fn ask(
    inputs: &Inputs,
    owner: Owner<'_>,
    clients: Option<&Validation>,
    mode: Option<ServerTlsMode>,
    out: &mut ServerTls,
) -> Option<Fault> {
    let clients = clients?;
    let reference = match clients.ca_certificate_refs.as_slice() {
        [] => return None,
        [one] => one,
        _ => return Some(Fault::new("InvalidCACertificateRef", "only one caCertificateRef is supported")),
    };
    match roots(inputs, owner, reference) {
        Err(fault) => Some(fault),
        Ok(name) => {
            let insecure = clients.mode == ValidationMode::AllowInsecureFallback && mode.is_none();
            let default = if insecure { ServerTlsMode::OptionalMutual } else { ServerTlsMode::Mutual };
            out.mode = mode.unwrap_or(default);
            out.insecure_skip_verify = Some(insecure);
            out.ca_cert_credential_name = name;
            None
        }
    }
}

fn roots(inputs: &Inputs, owner: Owner<'_>, reference: &ObjectReference) -> Result<String, Fault> {
    let own = owner.gateway.namespace();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let none = GroupKind { group: "", kind: "" };
    let kind = GroupKind::of(reference.group.as_deref(), reference.kind.as_deref(), none);
    let granted_as = if kind == GroupKind::SECRET { GroupKind::SECRET } else { GroupKind::CONFIG_MAP };
    let to = (namespace, reference.name.as_str());
    if namespace != own && !is_granted(inputs, GroupKind::GATEWAY, own, granted_as, to) {
        return Err(Fault::new(
            "RefNotPermitted",
            format!(
                "caCertificateRef {namespace}/{} not accessible to a Gateway in namespace \"{own}\" (missing a ReferenceGrant?)",
                reference.name
            ),
        ));
    }
    let shown = shown(reference);
    let wrong =
        |why: String| Fault::new("InvalidCACertificateRef", format!("invalid CA certificate reference {shown}, {why}"));
    let held: Held<'_> = if kind == GroupKind::CONFIG_MAP {
        credential::config_map(inputs, namespace, &reference.name)
            .map(Held::ConfigMap)
            .ok_or_else(|| wrong(format!("configmap {namespace}/{} not found", reference.name)))?
    } else if kind == GroupKind::SECRET {
        credential::secret(inputs, namespace, &reference.name)
            .map(|secret| Held::Secret(&secret.spec))
            .ok_or_else(|| wrong(format!("secret {namespace}/{} not found", reference.name)))?
    } else {
        let message = format!("invalid CA certificate reference {shown}, only secret and configmap are allowed");
        return Err(Fault::new("InvalidCACertificateKind", message));
    };
    let bundle = held.roots().map_err(wrong)?;
    if !pem::has_certificate(&bundle) {
        return Err(wrong("the bundle is malformed".to_owned()));
    }
    Ok(match held {
        Held::ConfigMap(_) => credential::roots_of_config_map(namespace, &reference.name),
        Held::Secret(_) => credential::roots_of_secret(namespace, &reference.name),
    })
}

/// The certificate that a Gateway is to present to servers: what is wrong with the reference to it.
pub(super) fn client_certificate(inputs: &Inputs, own: &str, reference: &ObjectReference) -> Option<Fault> {
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let shown = shown(reference);
    let wrong = |why: String| {
        Some(Fault::new("InvalidClientCertificateRef", format!("invalid clientCertificateRef {shown}, {why}")))
    };
    if GroupKind::of(reference.group.as_deref(), reference.kind.as_deref(), GroupKind::SECRET) != GroupKind::SECRET {
        return wrong("only secret is allowed".to_owned());
    }
    let to = (namespace, reference.name.as_str());
    if namespace != own && !is_granted(inputs, GroupKind::GATEWAY, own, GroupKind::SECRET, to) {
        return Some(Fault::new(
            "RefNotPermitted",
            format!(
                "clientCertificateRef {}/{namespace} not accessible to a Gateway in namespace \"{own}\" (missing a ReferenceGrant?)",
                reference.name
            ),
        ));
    }
    let Some(secret) = credential::secret(inputs, namespace, &reference.name) else {
        return wrong(format!("secret {namespace}/{} not found", reference.name));
    };
    match credential::pair(&secret.spec) {
        Err(why) => wrong(why),
        Ok((chain, key)) => match pem::check_pair(&chain, &key) {
            Err(why) => wrong(format!("the certificate is malformed: {why}")),
            Ok(()) => None,
        },
    }
}

/// `group/kind/name.namespace`, as it is written.
fn shown(reference: &ObjectReference) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}/{}.{}", part(&reference.group), part(&reference.kind), reference.name, part(&reference.namespace))
}

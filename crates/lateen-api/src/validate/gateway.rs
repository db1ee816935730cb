//! Rules for `Gateway`: servers, their ports, hosts and TLS settings.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::check::Check;
use super::names::{self, Protocol};
use crate::networking::Gateway;
use crate::networking::gateway::{Server, ServerTls, ServerTlsMode, TlsVersion};
use crate::object::Resource;

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<Gateway>) {
    let spec = &resource.spec;
    if spec.selector.is_empty() {
        check.warn("spec.selector", "without a selector the Gateway is for every gateway pod there is");
    }
    if spec.servers.is_empty() {
        check.error("spec.servers", "a Gateway needs at least one server");
    }
    let mut names = BTreeSet::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let field = format!("spec.servers[{index}]");
        check_server(check, &field, server);
        let name = server.port.name.as_str();
        if !name.is_empty() && !names.insert(name) {
            check.error(format!("{field}.port.name"), format!("the port name `{name}` is there a second time"));
        }
    }
}

fn check_server(check: &mut Check<'_>, field: &str, server: &Server) {
    if server.hosts.is_empty() {
        check.error(format!("{field}.hosts"), "a server needs at least one host");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        check.rule(format!("{field}.hosts[{index}]"), namespaced_host(host, true));
    }
    let port = &server.port;
    let unix = server.bind.strip_prefix("unix://");
    match unix {
        Some(path) => {
            check.rule(format!("{field}.bind"), names::unix_path(path));
            if port.number != 0 {
                check.error(format!("{field}.port.number"), "a server bound to a Unix socket has the port number 0");
            }
        }
        None => {
            check.rule(format!("{field}.port.number"), names::port(port.number));
            if !server.bind.is_empty() {
                check.rule(format!("{field}.bind"), names::ip(&server.bind));
            }
        }
    }
    if port.name.is_empty() {
        check.error(format!("{field}.port.name"), "`name` is required and missing");
    }
    if port.target_port.is_some_and(|target| target > 0) {
        check.error(format!("{field}.port.targetPort"), "`targetPort` has no effect on a Gateway");
    }
    if !server.default_endpoint.is_empty() {
        check.warn(format!("{field}.defaultEndpoint"), "`defaultEndpoint` has no effect");
    }
    match names::protocol(&port.protocol) {
        None if port.protocol.is_empty() => {
            check.error(format!("{field}.port.protocol"), "`protocol` is required and missing");
        }
        None | Some(Protocol::Udp) => {
            check.error(format!("{field}.port.protocol"), names::unknown_protocol(&port.protocol));
        }
        Some(protocol) => tls_fits(check, field, server, protocol),
    }
    if let Some(tls) = &server.tls {
        server_tls(check, &format!("{field}.tls"), tls);
    }
}

/// HTTPS and TLS need TLS settings, plaintext must not have any, except for `httpsRedirect` on HTTP.
fn tls_fits(check: &mut Check<'_>, field: &str, server: &Server, protocol: Protocol) {
    let word = &server.port.protocol;
    match (&server.tls, protocol) {
        (None, Protocol::Tls) => {
            check.error(format!("{field}.tls"), format!("a server of protocol {word} needs TLS settings"));
        }
        (Some(tls), Protocol::Http) => {
            let has_files =
                !tls.ca_certificates.is_empty() || !tls.private_key.is_empty() || !tls.server_certificate.is_empty();
            if tls.mode != ServerTlsMode::Passthrough || has_files {
                let help = "use the protocol HTTPS, or leave only `httpsRedirect`";
                check.error_help(format!("{field}.tls"), format!("a server of protocol {word} may not end TLS"), help);
            }
        }
        (Some(tls), protocol) if protocol != Protocol::Tls => {
            check.error(format!("{field}.tls"), format!("a server of protocol {word} may not have TLS settings"));
            redirect_without_http(check, field, tls);
        }
        (Some(tls), _) => redirect_without_http(check, field, tls),
        (None, _) => {}
    }
}

fn redirect_without_http(check: &mut Check<'_>, field: &str, tls: &ServerTls) {
    if tls.https_redirect {
        check.warn(format!("{field}.tls.httpsRedirect"), "`httpsRedirect` has an effect on HTTP servers only");
    }
}

pub(super) fn server_tls(check: &mut Check<'_>, field: &str, tls: &ServerTls) {
    let versions = [tls.min_protocol_version, tls.max_protocol_version];
    if let [Some(least), Some(most)] = versions
        && least != TlsVersion::Auto
        && most != TlsVersion::Auto
        && least > most
    {
        check.error(format!("{field}.maxProtocolVersion"), "`maxProtocolVersion` is below `minProtocolVersion`");
    }
    let sources = [
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    let chosen: Vec<&str> = sources.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if let [first, second, ..] = chosen.as_slice() {
        check.error(format!("{field}.{second}"), format!("only one of `{first}` and `{second}` may be set"));
    }
    for name in tls.credentials().chain([tls.ca_cert_credential_name.as_str()]) {
        check.rule(format!("{field}.credentialName"), names::credential(name));
    }
    for (name, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > 2 {
            check.error(format!("{field}.{name}"), format!("{count} certificates; at most 2, one RSA and one ECDSA"));
        }
    }
    for (index, pair) in tls.tls_certificates.iter().enumerate() {
        let place = format!("{field}.tlsCertificates[{index}]");
        for (name, path) in [("serverCertificate", &pair.server_certificate), ("privateKey", &pair.private_key)] {
            if path.is_empty() {
                check.error(format!("{place}.{name}"), format!("`{name}` is required and missing"));
            }
        }
    }
    if !tls.tls_certificates.is_empty() && !tls.server_certificate.is_empty() {
        check.error(
            format!("{field}.serverCertificate"),
            "only one of `tlsCertificates` and `serverCertificate` may be set",
        );
    }
    certificates(check, field, tls, !chosen.is_empty());
    offers(check, field, tls);
    pins(check, field, tls);
}

/// The cipher suites that Istio knows, by BoringSSL's names.
pub(crate) const CIPHER_SUITES: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

/// The key exchange groups that Envoy knows.
pub(crate) const CURVES: &[&str] = &["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];

/// A suite with ephemeral key exchange by certificate, and with authenticated encryption: what our proxies speak.
pub(crate) fn is_spoken(suite: &str) -> bool {
    let exchange = suite.starts_with("ECDHE-RSA-") || suite.starts_with("ECDHE-ECDSA-");
    exchange && (suite.contains("-GCM-") || suite.ends_with("-CHACHA20-POLY1305"))
}

/// Names of suites and groups; one that is not spoken is left out, and a list must have one that is.
fn offers(check: &mut Check<'_>, field: &str, tls: &ServerTls) {
    let suites = Offer { what: "cipher suite", known: CIPHER_SUITES, is_spoken };
    // With TLS 1.3 alone, whose suites cannot be chosen, the list is of no account.
    let needs_one = tls.min_protocol_version != Some(TlsVersion::V1_3);
    suites.check(check, &format!("{field}.cipherSuites"), &tls.cipher_suites, needs_one);
    let curves = Offer { what: "key exchange group", known: CURVES, is_spoken: |name| name != "P-521" };
    curves.check(check, &format!("{field}.ecdhCurves"), &tls.ecdh_curves, true);
}

/// What a list may name.
struct Offer {
    what: &'static str,
    known: &'static [&'static str],
    is_spoken: fn(&str) -> bool,
}

impl Offer {
    fn check(&self, check: &mut Check<'_>, field: &str, list: &[String], needs_one: bool) {
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{field}[{index}]");
            if !self.known.contains(&entry.as_str()) {
                let help = format!("there are {}", self.known.join(", "));
                check.error_help(place, format!("`{entry}` is the name of no {}", self.what), &help);
            } else if !(self.is_spoken)(entry) {
                check.warn(place, format!("`{entry}` is not spoken by the proxy and is left out"));
            }
        }
        if needs_one && !list.is_empty() && !list.iter().any(|entry| (self.is_spoken)(entry)) {
            check.error(field, format!("there is no {} in it that the proxy speaks", self.what));
        }
    }
}

/// Client certificates that are known by their SHA-256.
fn pins(check: &mut Check<'_>, field: &str, tls: &ServerTls) {
    for (index, text) in tls.verify_certificate_spki.iter().enumerate() {
        if !BASE64.decode(text).is_ok_and(|hash| hash.len() == 32) {
            let place = format!("{field}.verifyCertificateSpki[{index}]");
            check.error(place, format!("`{text}` is not a SHA-256 in base64"));
        }
    }
    for (index, text) in tls.verify_certificate_hash.iter().enumerate() {
        let digits = text.bytes().filter(|byte| *byte != b':');
        if digits.clone().count() != 64 || !digits.clone().all(|digit| digit.is_ascii_hexdigit()) {
            let place = format!("{field}.verifyCertificateHash[{index}]");
            check.error(place, format!("`{text}` is not a SHA-256 in hexadecimal"));
        }
    }
    let of_clients = [
        ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("caCertCredentialName", !tls.ca_cert_credential_name.is_empty()),
    ];
    for (name, _) in of_clients.iter().filter(|(_, set)| *set && !tls.asks_clients()) {
        let message =
            format!("`{name}` is about client certificates, for which the mode {} does not ask", word(tls.mode));
        check.error(format!("{field}.{name}"), message);
    }
}

/// Which certificates a mode needs, and which it does not take.
fn certificates(check: &mut Check<'_>, field: &str, tls: &ServerTls, from_elsewhere: bool) {
    let files = [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("credentialName", from_elsewhere),
    ];
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            for (name, set) in &files {
                if *set {
                    check.error(format!("{field}.{name}"), format!("the mode ISTIO_MUTUAL takes no `{name}`"));
                }
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            let present = files.iter().find(|(_, set)| *set);
            if let Some((name, _)) = present.filter(|_| !tls.https_redirect) {
                check.warn(format!("{field}.{name}"), format!("`{name}` has no effect: the mode passes TLS through"));
            }
        }
        // Of several certificates, the roots for clients are the server's all the same.
        _ if !tls.tls_certificates.is_empty() => {
            if tls.asks_clients() && tls.ca_certificates.is_empty() && tls.client_roots().is_none() {
                let message = format!("the mode {} needs `caCertificates` or a caCertCredentialName", word(tls.mode));
                check.error(format!("{field}.caCertificates"), message);
            }
        }
        _ if from_elsewhere => {}
        mode => {
            let has_roots = mode == ServerTlsMode::Simple || tls.client_roots().is_some();
            let needed = if has_roots { &files[..2] } else { &files[..3] };
            for (name, _) in needed.iter().filter(|(_, set)| !*set) {
                check.error(
                    format!("{field}.{name}"),
                    format!("the mode {} needs `{name}` or a credentialName", word(mode)),
                );
            }
        }
    }
    if !tls.ca_crl.is_empty() {
        if tls.client_roots().is_some() {
            check.error(
                format!("{field}.caCrl"),
                "with a credentialName the revocation list belongs into the credential",
            );
        } else if tls.mode == ServerTlsMode::Simple {
            check.error(
                format!("{field}.caCrl"),
                "the mode SIMPLE looks at no client certificate, so it takes no `caCrl`",
            );
        }
    }
}

fn word(mode: ServerTlsMode) -> &'static str {
    match mode {
        ServerTlsMode::Passthrough => "PASSTHROUGH",
        ServerTlsMode::Simple => "SIMPLE",
        ServerTlsMode::Mutual => "MUTUAL",
        ServerTlsMode::AutoPassthrough => "AUTO_PASSTHROUGH",
        ServerTlsMode::IstioMutual => "ISTIO_MUTUAL",
        ServerTlsMode::OptionalMutual => "OPTIONAL_MUTUAL",
    }
}

/// `namespace/host`, `./host`, `*/host`; on a Gateway also the host alone, on a Sidecar also `~` to leave out.
pub(super) fn namespaced_host(text: &str, on_gateway: bool) -> names::Ruling {
    let Some((namespace, host)) = text.split_once('/') else {
        if on_gateway {
            return names::wildcard_host(text);
        }
        return Err(format!("`{text}` is not of the form <namespace>/<host>"));
    };
    let excluded = namespace.strip_prefix('~').filter(|_| !on_gateway);
    let namespace_fits = match excluded {
        Some(rest) => rest.is_empty() || rest == "." || names::is_label(rest),
        None => matches!(namespace, "*" | ".") || names::is_label(namespace),
    };
    if !namespace_fits {
        return Err(format!("`{namespace}` is not a namespace, `.` or `*`"));
    }
    names::wildcard_host(host)
}

//! Rules for `Gateway`: servers, their ports, hosts and TLS settings.

use std::collections::BTreeSet;

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
    let old = [Some(TlsVersion::V1_0), Some(TlsVersion::V1_1)];
    if old.contains(&tls.min_protocol_version) {
        check.warn(format!("{field}.minProtocolVersion"), "TLS versions before 1.2 are not safe");
    }
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
    for (name, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > 2 {
            check.error(format!("{field}.{name}"), format!("{count} certificates; at most 2, one RSA and one ECDSA"));
        }
    }
    certificates(check, field, tls, !chosen.is_empty());
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
        _ if from_elsewhere => {}
        mode => {
            let needed = if mode == ServerTlsMode::Simple { &files[..2] } else { &files[..3] };
            for (name, _) in needed.iter().filter(|(_, set)| !*set) {
                check.error(
                    format!("{field}.{name}"),
                    format!("the mode {} needs `{name}` or a credentialName", word(mode)),
                );
            }
        }
    }
    if !tls.ca_crl.is_empty() {
        if from_elsewhere {
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

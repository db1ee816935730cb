//! `/certs`: the certificates that TLS contexts in force use, as Envoy describes them (`envoy.admin.v3.Certificates`).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use lateen_engine::config::tls::{Certificates, Common, Source, Trusted};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::tls::{self, TlsStore, Workload};
use crate::worker::Shared;

/// One entry for each set of certificates, however many contexts share it. Reads files, as contexts do when they are built.
pub(super) fn certificates(shared: &Shared) -> Value {
    let snapshot = shared.snapshot.load_full();
    let chains = snapshot.listeners().flat_map(|listener| listener.chains.iter());
    let servers = chains.filter_map(|chain| Some(&chain.tls.as_ref()?.common));
    let clients = snapshot.clusters().flat_map(|cluster| cluster.transport.contexts()).map(|tls| &tls.common);
    let workload = shared.tls.workload();
    let mut entries: Vec<Value> = Vec::new();
    for context in servers.chain(clients) {
        let entry = entry(context, workload.as_deref(), &shared.tls);
        let something = entry.as_object().is_some_and(|entry| !entry.is_empty());
        if something && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    json!({ "certificates": entries })
}

/// `envoy.admin.v3.Certificate`.
fn entry(context: &Common, workload: Option<&Workload>, store: &TlsStore) -> Value {
    let mut fields = Map::new();
    let roots = context.validation.as_ref().and_then(|validation| match (&validation.sds, &validation.trusted) {
        (Some(name), _) if name == tls::MESH_ROOTS => Some(("<inline>", store.mesh_roots().into_iter().next()?.1)),
        (None, Some(Trusted::Any(source))) => Some((path(source), tls::material::bytes(source).ok()?)),
        _ => None,
    });
    // Envoy describes the first of the roots.
    if let Some(details) = roots.and_then(|(path, pem)| details(path, &first(&pem)?)) {
        fields.insert("ca_cert".to_owned(), json!([details]));
    }
    let chain: Vec<Value> = match &context.certificates {
        Some(Certificates::Static(list)) => {
            let of = |source: &Source| details(path(source), &first(&tls::material::bytes(source).ok()?)?);
            list.iter().filter_map(|certificate| of(&certificate.chain)).collect()
        }
        Some(Certificates::Sds(names)) if names.iter().any(|name| name == tls::WORKLOAD_CERTIFICATE) => {
            let leaf = workload.and_then(|workload| workload.identity.chain().first());
            leaf.and_then(|leaf| details("<inline>", leaf)).into_iter().collect()
        }
        Some(Certificates::Sds(_)) | None => Vec::new(),
    };
    if !chain.is_empty() {
        fields.insert("cert_chain".to_owned(), json!(chain));
    }
    Value::Object(fields)
}

fn path(source: &Source) -> &str {
    match source {
        Source::File(name) => name,
        Source::Inline(_) | Source::Environment(_) => "<inline>",
        Source::System => "<system>",
    }
}

fn first(pem: &[u8]) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).next()?.ok()
}

/// `envoy.admin.v3.CertificateDetails`.
fn details(path: &str, certificate: &CertificateDer<'_>) -> Option<Value> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial: String = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    let (from, to) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    let left = to.duration_since(SystemTime::now()).unwrap_or_default();
    let mut fields = json!({ "path": path, "serial_number": serial.strip_prefix("00").unwrap_or(&serial) });
    let names = parsed.subject_alternative_name().ok().flatten();
    let names: Vec<Value> =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(subject_alt_name).collect();
    if !names.is_empty() {
        fields["subject_alt_names"] = json!(names);
    }
    fields["days_until_expiration"] = json!((left.as_secs() / (24 * 3600)).to_string());
    fields["valid_from"] = json!(time(from));
    fields["expiration_time"] = json!(time(to));
    Some(fields)
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

fn subject_alt_name(name: &GeneralName<'_>) -> Option<Value> {
    match name {
        GeneralName::DNSName(name) => Some(json!({ "dns": name })),
        GeneralName::URI(uri) => Some(json!({ "uri": uri })),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(json!({ "ip_address": address.to_string() }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509 -newkey ec`, with a serial number whose first bit is set, and DNS, URI and IP names.
    const PEM: &[u8] = include_bytes!("testdata/certificate.pem");

    #[test]
    fn a_certificate_is_described_as_envoy_describes_it() {
        let certificate = first(PEM).expect("there is one");
        let mut found = details("/etc/certs/cert.pem", &certificate).expect("it can be read");
        let days = found["days_until_expiration"].take();
        assert!(days.as_str().and_then(|days| days.parse::<u64>().ok()).is_some_and(|days| days > 3000), "{days}");
        let expected = json!({
            "path": "/etc/certs/cert.pem",
            "serial_number": "c30123456789",
            "subject_alt_names": [
                { "dns": "example.com" }, { "uri": "spiffe://cluster.local/ns/a/sa/b" }, { "ip_address": "10.0.0.1" },
            ],
            "days_until_expiration": null,
            "valid_from": "2026-11-27T12:54:12Z",
            "expiration_time": "2126-11-03T12:54:12Z",
        });
        assert_eq!(found, expected);
    }
}

//! Secrets: the certificates that a proxy shows and the roots that it trusts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::pem::Pem;

use super::{Of, dump, rows, text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) of: Of,
}

/// A row for each certificate: the first of a chain, and every root.
pub(super) fn found(dump: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    for (state, entry) in dump::secrets(dump) {
        let secret = &entry["secret"];
        let name = secret["name"].as_str().unwrap_or_else(|| text(&entry["name"]));
        let mut add = |kind: &str, place: &Value, only_first: bool| {
            for mut certificate in certificates(place, only_first) {
                for (field, value) in [("name", name), ("type", kind), ("state", state)] {
                    certificate[field] = json!(value);
                }
                out.push(certificate);
            }
        };
        add("Cert Chain", &secret["tls_certificate"]["certificate_chain"], true);
        let validation = &secret["validation_context"];
        add("CA", &validation["trusted_ca"], false);
        let domains = validation["custom_validator_config"]["typed_config"]["trust_domains"].as_array();
        for domain in domains.into_iter().flatten() {
            add("CA", &domain["trust_bundle"], false);
        }
    }
    out
}

fn certificates(place: &Value, only_first: bool) -> Vec<Value> {
    let pem = match (place["inline_bytes"].as_str(), place["inline_string"].as_str()) {
        (Some(encoded), _) => STANDARD.decode(encoded).unwrap_or_default(),
        (None, Some(text)) => text.as_bytes().to_vec(),
        (None, None) => return Vec::new(),
    };
    let read = |pem: Pem| {
        let certificate = pem.parse_x509().ok()?;
        let time = |seconds: i64| Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
        let validity = certificate.validity();
        Some(json!({
            "valid": validity.is_valid(),
            "serialNumber": certificate.tbs_certificate.raw_serial_as_string().replace(':', ""),
            "notAfter": time(validity.not_after.timestamp()),
            "notBefore": time(validity.not_before.timestamp()),
        }))
    };
    let all = Pem::iter_from_buffer(&pem).filter_map(Result::ok).filter_map(read);
    all.take(if only_first { 1 } else { usize::MAX }).collect()
}

pub(super) fn table(found: &[Value]) -> String {
    let row = |row: &Value| {
        let cell = |field: &str| text(&row[field]).to_owned();
        let valid = row["valid"].as_bool().unwrap_or_default().to_string();
        vec![
            cell("name"),
            cell("type"),
            cell("state"),
            valid,
            cell("serialNumber"),
            cell("notAfter"),
            cell("notBefore"),
        ]
    };
    let header = ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];
    rows(&header, &found.iter().map(row).collect::<Vec<_>>(), "no secrets")
}

//! Rules for `ReferenceGrant`, `BackendTLSPolicy` and `XBackendTrafficPolicy`.

use super::{hostname, required};
use crate::gateway_api::backend_tls_policy::{SubjectAltName, SubjectAltNameType};
use crate::gateway_api::{BackendTlsPolicy, ReferenceGrant, TrafficPolicy};
use crate::validate::check::Check;

pub(in super::super) fn check_grant(check: &mut Check<'_>, grant: &ReferenceGrant) {
    for (list, name) in [(grant.from.is_empty(), "from"), (grant.to.is_empty(), "to")] {
        if list {
            check.error(format!("spec.{name}"), format!("a ReferenceGrant needs an entry in `{name}`"));
        }
    }
    for (index, from) in grant.from.iter().enumerate() {
        required(check, format!("spec.from[{index}].kind"), &from.kind);
        required(check, format!("spec.from[{index}].namespace"), &from.namespace);
    }
    for (index, to) in grant.to.iter().enumerate() {
        required(check, format!("spec.to[{index}].kind"), &to.kind);
    }
}

pub(in super::super) fn check_backend_tls(check: &mut Check<'_>, policy: &BackendTlsPolicy) {
    if policy.target_refs.is_empty() {
        check.error("spec.targetRefs", "a policy needs a target");
    }
    for (index, target) in policy.target_refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{index}]");
        required(check, format!("{field}.kind"), &target.kind);
        required(check, format!("{field}.name"), &target.name);
        if policy.target_refs[..index].contains(target) {
            check.error(field, "the same target stands here twice; tell its ports apart by `sectionName`");
        }
    }
    let wanted = &policy.validation;
    let has_refs = !wanted.ca_certificate_refs.is_empty();
    match (has_refs, &wanted.well_known_ca_certificates) {
        (true, Some(_)) => check.error(
            "spec.validation.wellKnownCACertificates",
            "only one of `caCertificateRefs` and `wellKnownCACertificates` may be set",
        ),
        (false, None) => check.error(
            "spec.validation",
            "one of `caCertificateRefs` and `wellKnownCACertificates` is required: whom to trust must be said",
        ),
        _ => {}
    }
    if wanted.hostname.is_empty() {
        required(check, "spec.validation.hostname".to_owned(), "");
    } else {
        hostname(check, "spec.validation.hostname".to_owned(), &wanted.hostname);
    }
    for (index, name) in wanted.subject_alt_names.iter().enumerate() {
        alternative(check, &format!("spec.validation.subjectAltNames[{index}]"), name);
    }
}

fn alternative(check: &mut Check<'_>, field: &str, name: &SubjectAltName) {
    let fields = [
        ("hostname", SubjectAltNameType::Hostname, !name.hostname.is_empty()),
        ("uri", SubjectAltNameType::Uri, !name.uri.is_empty()),
    ];
    for (word, kind, is_set) in fields {
        if (kind == name.kind) != is_set {
            let what = if is_set { "only stands with its own type" } else { "is required" };
            check.error(format!("{field}.{word}"), format!("`{word}` {what}"));
        }
    }
}

pub(in super::super) fn check_traffic(check: &mut Check<'_>, policy: &TrafficPolicy) {
    if policy.target_refs.is_empty() {
        check.error("spec.targetRefs", "a policy needs a target");
    }
    for (index, target) in policy.target_refs.iter().enumerate() {
        required(check, format!("spec.targetRefs[{index}].kind"), &target.kind);
        required(check, format!("spec.targetRefs[{index}].name"), &target.name);
    }
}

//! Rules for `RequestAuthentication`.

use super::check::Check;
use super::{headers, metadata};
use crate::security::request_authentication::JwtRule;
use crate::security::{RequestAuthentication, key_set};

pub(super) fn check(check: &mut Check<'_>, spec: &RequestAuthentication) {
    metadata::targets(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        jwt_rule(check, &format!("spec.jwtRules[{index}]"), rule);
    }
}

fn jwt_rule(check: &mut Check<'_>, field: &str, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        check.error(format!("{field}.issuer"), "`issuer` is required and missing");
    }
    if !rule.jwks.is_empty() && !rule.jwks_uri.is_empty() {
        check.error(format!("{field}.jwksUri"), "only one of `jwks` and `jwksUri` may be set");
    }
    if !rule.jwks_uri.is_empty() && !rule.jwks_uri.starts_with("http://") && !rule.jwks_uri.starts_with("https://") {
        check.error(format!("{field}.jwksUri"), format!("`{}` is not an http or https URL", rule.jwks_uri));
    }
    if !rule.jwks.is_empty()
        && let Err(reason) = key_set::check(&rule.jwks)
    {
        check.error(format!("{field}.jwks"), reason);
    }
    let lists =
        [("audiences", &rule.audiences), ("fromParams", &rule.from_params), ("fromCookies", &rule.from_cookies)];
    for (name, list) in lists {
        for (index, _) in list.iter().enumerate().filter(|(_, entry)| entry.is_empty()) {
            check.error(format!("{field}.{name}[{index}]"), "the entry is empty");
        }
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        if !headers::is_name(&header.name) {
            let message = format!("`{}` is not a header name", header.name);
            check.error(format!("{field}.fromHeaders[{index}].name"), message);
        }
    }
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let place = format!("{field}.outputClaimToHeaders[{index}]");
        if output.claim.is_empty() {
            check.error(format!("{place}.claim"), "`claim` is required and missing");
        }
        if !headers::is_name(&output.header) {
            check.error(format!("{place}.header"), format!("`{}` is not a header name", output.header));
        }
    }
    check.duration(format!("{field}.timeout"), rule.timeout);
}

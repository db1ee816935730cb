//! RequestAuthentications as Envoy's `jwt_authn` filter: whose tokens are believed. A token that is there must be good; that
//! one is there, AuthorizationPolicies ask.

use std::collections::{BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::google::protobuf::Empty;
use jwt::jwt_requirement::RequiresType;
use lateen_api::security::key_set;
use lateen_api::security::request_authentication::JwtRule;
use lateen_mesh::{Mesh, Workload};

use crate::proto::http_filter;
use crate::route::everything;

/// The filter's name, under which it writes what tokens say.
pub(crate) const NAME: &str = "envoy.filters.http.jwt_authn";
/// Where in that the claims stand.
pub(crate) const PAYLOAD: &str = "payload";
/// Claims that are lists in one text wherever they are (Istio).
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// The filter for a workload, if a RequestAuthentication holds for it. `clear_route`: routes are chosen by claims.
pub(crate) fn filter(mesh: &Mesh, workload: &Workload, clear_route: bool) -> Option<HttpFilter> {
    let objects = mesh.request_authentications(workload);
    let mut rules: Vec<&JwtRule> = objects.iter().flat_map(|object| &object.spec.jwt_rules).collect();
    if rules.is_empty() {
        return None;
    }
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let name = |number: usize| format!("origins-{number}");
    let providers: HashMap<_, _> =
        rules.iter().enumerate().map(|(number, rule)| (name(number), provider(rule, clear_route))).collect();
    let rule = jwt::RequirementRule {
        r#match: Some(everything()),
        requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(requirement(
            (0..rules.len()).map(name),
        ))),
    };
    let config = jwt::JwtAuthentication {
        providers,
        rules: vec![rule],
        bypass_cors_preflight: true,
        ..jwt::JwtAuthentication::default()
    };
    Some(http_filter(NAME, &config))
}

/// Any good token, or for each provider a good one or none. The second alone would refuse a token of one provider where
/// another has its tokens in the same place; the first alone would pass a bad token beside a good one elsewhere.
fn requirement(names: impl Iterator<Item = String>) -> jwt::JwtRequirement {
    let of = |kind| jwt::JwtRequirement { requires_type: Some(kind) };
    let any = |requirements| of(RequiresType::RequiresAny(jwt::JwtRequirementOrList { requirements }));
    let mut good: Vec<_> = names.map(|name| of(RequiresType::ProviderName(name))).collect();
    let or_none = |good: &jwt::JwtRequirement| any(vec![good.clone(), of(RequiresType::AllowMissing(Empty {}))]);
    if let [only] = good.as_slice() {
        return or_none(only);
    }
    let requirements = good.iter().map(or_none).collect();
    good.push(of(RequiresType::RequiresAll(jwt::JwtRequirementAndList { requirements })));
    any(good)
}

fn provider(rule: &JwtRule, clear_route: bool) -> jwt::JwtProvider {
    let space_delimited: BTreeSet<&str> =
        rule.space_delimited_claims.iter().map(String::as_str).chain(SPACE_DELIMITED).collect();
    let keys = if rule.jwks.is_empty() { key_set::OF_NOBODY } else { &rule.jwks };
    let header = |header: &lateen_api::security::request_authentication::JwtHeader| jwt::JwtHeader {
        name: header.name.clone(),
        value_prefix: header.prefix.clone(),
    };
    let claim = |output: &lateen_api::security::request_authentication::ClaimToHeader| jwt::JwtClaimToHeader {
        header_name: output.header.clone(),
        claim_name: output.claim.clone(),
        ..jwt::JwtClaimToHeader::default()
    };
    jwt::JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_payload_header: rule.output_payload_to_header.clone(),
        claim_to_headers: rule.output_claim_to_headers.iter().map(claim).collect(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(jwt::jwt_provider::NormalizePayload {
            space_delimited_claims: space_delimited.into_iter().map(str::to_owned).collect(),
        }),
        clear_route_cache: clear_route,
        jwks_source_specifier: Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(keys.to_owned())),
            ..core::DataSource::default()
        })),
        ..jwt::JwtProvider::default()
    }
}

//! CORS policy of a VirtualService route, as configuration of the CORS filter.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use lateen_api::networking::virtual_service::{CorsPolicy, UnmatchedPreflights};

use crate::filters::fault::whole;
use crate::proto::{boolean, strings};
use crate::route::route_match::string_matcher;

/// The filter's configuration for one route.
pub(crate) fn translate(policy: &CorsPolicy) -> cors::CorsPolicy {
    let origins = if policy.allow_origins.is_empty() {
        policy.allow_origin.iter().map(strings::exact).collect()
    } else {
        policy.allow_origins.iter().map(string_matcher).collect()
    };
    cors::CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.map(boolean),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(whole(100)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: Some(boolean(
            policy.unmatched_preflights != Some(UnmatchedPreflights::Ignore),
        )),
        ..cors::CorsPolicy::default()
    }
}

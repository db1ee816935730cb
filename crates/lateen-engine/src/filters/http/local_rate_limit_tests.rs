//! One limit asked by one client after another.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use envoy_types::pb::google::protobuf;
use http::Method;

use super::*;
use crate::message::{Headers, RequestHead, Scheme, Version};
use crate::metadata::DynamicMetadata;

fn bucket(tokens: u32) -> kinds::TokenBucket {
    let fill_interval = Some(protobuf::Duration { seconds: 3600, nanos: 0 });
    kinds::TokenBucket { max_tokens: tokens, tokens_per_fill: None, fill_interval }
}

fn always() -> Option<RuntimeFractionalPercent> {
    let default_value = Some(kinds::FractionalPercent { numerator: 100, denominator: 0 });
    Some(RuntimeFractionalPercent { default_value, runtime_key: String::new() })
}

fn limit(key: &str, value: &str, tokens: u32) -> common::LocalRateLimitDescriptor {
    let entries = vec![common::rate_limit_descriptor::Entry { key: key.to_owned(), value: value.to_owned() }];
    common::LocalRateLimitDescriptor { entries, token_bucket: Some(bucket(tokens)), shadow_mode: false }
}

fn config(tokens: u32, descriptors: Vec<common::LocalRateLimitDescriptor>) -> proto::LocalRateLimit {
    use envoy_types::pb::envoy::config::route::v3 as route;
    use route::rate_limit::{Action, action};
    let describe = action::ActionSpecifier::RequestHeaders(action::RequestHeaders {
        header_name: "x-user".to_owned(),
        descriptor_key: "user".to_owned(),
        skip_if_absent: false,
    });
    proto::LocalRateLimit {
        stat_prefix: "test".to_owned(),
        token_bucket: Some(bucket(tokens)),
        filter_enabled: always(),
        filter_enforced: always(),
        enable_x_ratelimit_headers: 1,
        descriptors,
        rate_limits: vec![route::RateLimit {
            actions: vec![Action { action_specifier: Some(describe) }],
            ..route::RateLimit::default()
        }],
        ..proto::LocalRateLimit::default()
    }
}

fn compile(config: &proto::LocalRateLimit) -> LocalRateLimit {
    let at = At::resource("test");
    let limit = LocalRateLimit::from_xds(config, false, &at);
    at.finish(limit).expect("it compiles")
}

fn errors(config: &proto::LocalRateLimit, of_route: bool) -> Vec<String> {
    let at = At::resource("test");
    let limit = LocalRateLimit::from_xds(config, of_route, &at);
    at.finish(limit).expect_err("it is refused").iter().map(ToString::to_string).collect()
}

fn asked_by(user: Option<&'static str>) -> RequestHead {
    let mut headers = Headers::default();
    if let Some(user) = user {
        headers.append(HeaderName::from_static("x-user"), HeaderValue::from_static(user));
    }
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: Bytes::from_static(b"h"),
        path: Bytes::from_static(b"/"),
        headers,
        version: Version::Http11,
    }
}

fn ask(limit: &LocalRateLimit, user: Option<&'static str>, now: Instant) -> Option<Decision> {
    let head = asked_by(user);
    let request = Described {
        head: &head,
        remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
        cluster: None,
        metadata: DynamicMetadata::none(),
        of_route: DynamicMetadata::none(),
        own_cluster: "",
        value: &|_, _| {},
    };
    limit.decide(&request, None, now, 0)
}

fn is_allowed(decision: &Option<Decision>) -> bool {
    matches!(decision, Some(Decision { outcome: Outcome::Allowed, .. }))
}

#[test]
fn each_description_has_its_own_bucket_beside_that_of_all() {
    let limit = compile(&config(4, vec![limit("user", "ann", 1), limit("user", "", 2)]));
    let now = Instant::now();
    let allowed = |user| is_allowed(&ask(&limit, user, now));
    assert_eq!((allowed(Some("ann")), allowed(Some("ann"))), (true, false));
    assert_eq!((allowed(Some("bob")), allowed(Some("bob")), allowed(Some("bob"))), (true, true, false));
    // Of the four for all one is left: who was refused by his own bucket took none.
    assert_eq!((allowed(Some("cyd")), allowed(Some("cyd"))), (true, false));
}

#[test]
fn the_bucket_of_all_may_be_for_the_rest_only() {
    let mut config = config(1, vec![limit("user", "ann", 3)]);
    config.always_consume_default_token_bucket = Some(protobuf::BoolValue { value: false });
    let limit = compile(&config);
    let now = Instant::now();
    assert!((0..3).all(|_| is_allowed(&ask(&limit, Some("ann"), now))));
    assert!(is_allowed(&ask(&limit, None, now)));
    assert!(!is_allowed(&ask(&limit, None, now)));
}

#[test]
fn values_without_end_take_no_memory_without_end() {
    let mut config = config(1000, vec![limit("user", "", 1)]);
    config.max_dynamic_descriptors = Some(protobuf::UInt32Value { value: 2 });
    let limit = compile(&config);
    let now = Instant::now();
    assert!(is_allowed(&ask(&limit, Some("a"), now)));
    assert!(is_allowed(&ask(&limit, Some("b"), now)));
    // `a` was asked for last, so `b` makes room for `c`.
    assert!(!is_allowed(&ask(&limit, Some("a"), now)));
    assert!(is_allowed(&ask(&limit, Some("c"), now)));
    assert!(!is_allowed(&ask(&limit, Some("a"), now)));
    let Buckets::PerValue(buckets) = &limit.limits[0].buckets else { panic!("it has a bucket per value") };
    assert_eq!(buckets.known.lock().unwrap().buckets.len(), 2);
}

#[test]
fn an_answer_says_how_much_is_left_and_until_when() {
    let mut config = config(2, Vec::new());
    config.enable_retry_after_header = true;
    config.rate_limited_as_resource_exhausted = true;
    let limit = compile(&config);
    let now = Instant::now();
    let quota = |decision: Option<Decision>| decision.and_then(|decision| decision.quota).expect("it tells the quota");
    assert_eq!(quota(ask(&limit, None, now)), Quota { limit: 2, remaining: 1, reset: 0 });
    assert!(is_allowed(&ask(&limit, None, now)));
    let refused = ask(&limit, None, now);
    let Some(Decision { outcome: Outcome::Refused(reply), .. }) = &refused else { panic!("it is refused") };
    assert_eq!(reply.headers, [(RETRY_AFTER, HeaderValue::from_static("3600"))]);
    assert_eq!((reply.status.as_u16(), reply.grpc_code(), reply.flag), (429, 8, Some(ResponseFlag::RateLimited)));
    let headers: Vec<_> =
        quota(refused).headers().map(|(name, value)| (name, value.to_str().unwrap().to_owned())).into();
    assert_eq!(headers, [(LIMIT, "2".to_owned()), (REMAINING, "0".to_owned()), (RESET, "3600".to_owned())]);
}

#[test]
fn limits_may_be_tried_out_without_being_enforced() {
    let mut config = config(1, Vec::new());
    config.filter_enforced = None;
    let limit = compile(&config);
    let now = Instant::now();
    assert!(is_allowed(&ask(&limit, None, now)));
    assert!(matches!(ask(&limit, None, now), Some(Decision { outcome: Outcome::NotEnforced, .. })));
    config.filter_enabled = None;
    assert!(ask(&compile(&config), None, now).is_none());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let with = |change: fn(&mut proto::LocalRateLimit)| {
        let mut config = config(1, vec![limit("user", "ann", 1)]);
        change(&mut config);
        errors(&config, false)
    };
    for (change, expected) in [
        (
            (|config| config.local_rate_limit_per_downstream_connection = true) as fn(&mut proto::LocalRateLimit),
            "test: local_rate_limit_per_downstream_connection: is not supported",
        ),
        (|config| config.stat_prefix.clear(), "test: stat_prefix: is required"),
        (|config| config.stage = 11, "test: stage: must be from 0 to 10"),
        (|config| config.descriptors[0].shadow_mode = true, "test: descriptors[0].shadow_mode: is not supported"),
        (
            |config| config.descriptors[0].entries.clear(),
            "test: descriptors[0].entries: at least one is required, each with a key",
        ),
        (
            |config| config.token_bucket.as_mut().unwrap().max_tokens = 0,
            "test: token_bucket.max_tokens: must be greater than 0",
        ),
        (
            |config| config.token_bucket.as_mut().unwrap().fill_interval.as_mut().unwrap().seconds = 0,
            "test: token_bucket.fill_interval: must be 50 ms or more",
        ),
    ] {
        assert_eq!(with(change), [expected]);
    }
    let mut config = config(1, Vec::new());
    config.token_bucket = None;
    assert_eq!(errors(&config, true), ["test: token_bucket: is required for a route or virtual host"]);
    assert!(is_allowed(&ask(&compile(&config), None, Instant::now())), "a filter without a bucket limits nothing");
}

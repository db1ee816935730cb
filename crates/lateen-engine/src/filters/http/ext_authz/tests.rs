//! What a configuration may say, and what answers make of a request.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use http::Method;
use prost::Message;

use super::*;
use crate::message::{Headers, Scheme, Version};

const GRPC: &str = "grpc_service: {envoy_grpc: {cluster_name: authz}}";

fn compile(yaml: &str) -> Result<ExtAuthz, Vec<String>> {
    let at = At::resource("test");
    let config: proto::ExtAuthz = lateen_xds::json::from_yaml(yaml).expect("the rows are messages");
    let compiled = ExtAuthz::from_xds(&config, &at);
    at.finish(compiled).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn head(path: &'static str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: "h".into(),
        path: Bytes::from_static(path.as_bytes()),
        headers: Headers::default(),
        version: Version::Http11,
    }
}

const LIMITS: Limits = Limits { count: 100, bytes: 4096 };

/// An answer that sets these headers and parameters of the request.
fn answer(headers: &[(&str, &str)], query: &[(&str, &str)]) -> Vec<u8> {
    let header = |(key, value): &(&str, &str)| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            ..core::HeaderValue::default()
        }),
        ..core::HeaderValueOption::default()
    };
    let parameter =
        |(key, value): &(&str, &str)| core::QueryParameter { key: (*key).to_owned(), value: (*value).to_owned() };
    let ok = auth::OkHttpResponse {
        headers: headers.iter().map(header).collect(),
        query_parameters_to_set: query.iter().map(parameter).collect(),
        ..auth::OkHttpResponse::default()
    };
    let http_response = Some(auth::check_response::HttpResponse::OkResponse(ok));
    auth::CheckResponse { http_response, ..auth::CheckResponse::default() }.encode_to_vec()
}

fn changes(filter: &ExtAuthz, answer: &[u8]) -> Changes {
    match filter.grpc_answer(answer).expect("it is an answer").0 {
        Answer::Allowed(changes) => *changes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    for (field, named) in [
        ("include_peer_certificate: true", "include_peer_certificate"),
        ("typed_metadata_context_namespaces: [a]", "typed_metadata_context_namespaces"),
        ("shadow_mode: true", "shadow_mode"),
        ("transport_api_version: V2", "transport_api_version"),
        ("with_request_body: {allow_partial_message: true}", "with_request_body.max_request_bytes"),
        ("filter_enabled_metadata: {path: [{key: a}], value: {present_match: true}}", "filter_enabled_metadata.filter"),
    ] {
        let errors = compile(&format!("{GRPC}\n{field}")).expect_err(field);
        assert!(errors.iter().any(|error| error.contains(named)), "{errors:?}");
    }
    for (service, named) in [
        ("http_service: {server_uri: {uri: a, timeout: 1s}}", "http_service.server_uri.cluster"),
        ("http_service: {server_uri: {uri: a, cluster: c, timeout: 1s}, path_override: /a}", "path_override"),
        ("http_service: {server_uri: {uri: a, cluster: c, timeout: 1s}, path_prefix: a}", "path_prefix"),
        ("stat_prefix: nobody", "grpc_service"),
    ] {
        let errors = compile(service).expect_err(service);
        assert!(errors.iter().any(|error| error.contains(named)), "{errors:?}");
    }
}

#[test]
fn what_no_message_can_have_is_left_out_or_refused() {
    let answer = answer(&[("x y", "a"), (":path", "no path"), ("x-good", "a")], &[("a", "b c")]);
    let filter = compile(GRPC).expect("it is right");
    let mut changed = head("/a?b");
    changes(&filter, &answer).apply(&mut changed, LIMITS).expect("it is small");
    assert_eq!((&changed.path[..], changed.headers.len()), (&b"/a?b"[..], 1));

    let strict = compile(&format!("{GRPC}\nvalidate_mutations: true")).expect("it is right");
    assert!(matches!(strict.grpc_answer(&answer).expect("it is an answer").0, Answer::Invalid));
}

#[test]
fn a_request_does_not_outgrow_what_one_may_be() {
    let filter = compile(GRPC).expect("it is right");
    let answer = answer(&[("x-a", "a"), ("x-b", "b")], &[]);
    let apply = |limits| changes(&filter, &answer).apply(&mut head("/"), limits);
    assert!(apply(Limits { count: 6, ..LIMITS }).is_ok());
    assert!(apply(Limits { count: 5, ..LIMITS }).is_err());
    assert!(apply(Limits { bytes: 5, ..LIMITS }).is_err());
}

#[test]
fn a_route_tells_the_service_what_outer_levels_say_too() {
    let read = |yaml: &str| {
        let at = At::resource("test");
        let config: proto::ExtAuthzPerRoute = lateen_xds::json::from_yaml(yaml).expect("the rows are messages");
        let compiled = PerRoute::from_xds(&config, &at);
        at.finish(compiled).expect("it is right")
    };
    let host = read("check_settings: {context_extensions: {a: host, b: host}}");
    let route = read("check_settings: {context_extensions: {b: route}, disable_request_body_buffering: true}");
    let both = route.over(&host);
    let told: Vec<_> = both.extensions.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(told, [("a", "host"), ("b", "route")]);
    assert!(both.no_body);
}

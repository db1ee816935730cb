//! What the client says, and what it lets through.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;

use super::{Interest, Rejection, State};
use crate::type_url::{CLUSTER, ENDPOINT};

fn named(names: &[&str]) -> Interest {
    Interest::Named(names.iter().map(|name| (*name).into()).collect())
}

fn resource(type_url: &str, name: &str, version: &str) -> Resource {
    let any = Any { type_url: type_url.to_owned(), value: Vec::new() };
    Resource { name: name.to_owned(), version: version.to_owned(), resource: Some(any), ..Resource::default() }
}

fn response(type_url: &str, nonce: &str, up: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources: up.iter().map(|(name, version)| resource(type_url, name, version)).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A state on an open stream that has asked for all clusters and for the endpoints `a`.
fn open() -> State {
    let mut state = State::new(Node { id: "me".to_owned(), ..Node::default() });
    state.set_interest(CLUSTER, Interest::All);
    state.set_interest(ENDPOINT, named(&["a"]));
    state.connected();
    let first = state.poll().expect("clusters are asked for");
    assert_eq!(first.node.expect("the first request has a node").id, "me");
    assert_eq!((first.type_url.as_str(), first.resource_names_subscribe), (CLUSTER, vec!["*".to_owned()]));
    let second = state.poll().expect("endpoints are asked for");
    assert_eq!((second.node, second.resource_names_subscribe), (None, vec!["a".to_owned()]));
    assert_eq!(state.poll(), None);
    state
}

fn apply(state: &mut State, response: DeltaDiscoveryResponse, refused: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let (_, received) = state.on_response(response).expect("it is new and of interest");
    let refuse =
        |(resource, reason): &(&str, &str)| Rejection { resource: (*resource).into(), reason: (*reason).into() };
    state.applied(received, refused.iter().map(refuse).collect());
    state.poll().expect("an answer")
}

fn held(state: &State, type_url: &str) -> BTreeMap<String, String> {
    state.held(type_url).map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

#[test]
fn nothing_is_asked_for_by_no_names() {
    let mut state = State::new(Node::default());
    state.set_interest(ENDPOINT, named(&[]));
    state.connected();
    assert_eq!(state.poll(), None);
}

#[test]
fn a_response_is_answered_when_it_has_been_applied_and_not_before() {
    let mut state = open();
    let (update, received) = state.on_response(response(CLUSTER, "1", &[("x", "v1")], &["gone"])).expect("new");
    assert_eq!((update.upserts.len(), update.removals), (1, vec!["gone".to_owned()]));
    assert_eq!(state.poll(), None);
    state.applied(received, Vec::new());
    let ack = state.poll().expect("an answer");
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
    assert_eq!(held(&state, CLUSTER), [("x".to_owned(), "v1".to_owned())].into());
}

#[test]
fn a_refusal_names_each_resource_on_its_line_and_the_version_before_stays() {
    let mut state = open();
    apply(&mut state, response(CLUSTER, "1", &[("x", "v1")], &[]), &[]);
    let update = response(CLUSTER, "2", &[("x", "v2"), ("y", "v1"), ("z", "v1")], &[]);
    let nack = apply(&mut state, update, &[("x", "no\nsuch policy"), ("z", "bad")]);
    assert_eq!(nack.response_nonce, "2");
    assert_eq!(nack.error_detail.expect("it is a refusal").message, "x: no such policy\nz: bad");
    assert_eq!(held(&state, CLUSTER), [("x".to_owned(), "v1".to_owned()), ("y".to_owned(), "v1".to_owned())].into());
}

#[test]
fn after_a_reconnect_what_is_held_is_said_to_be_held() {
    let mut state = open();
    apply(&mut state, response(CLUSTER, "1", &[("x", "v1")], &[]), &[]);
    state.connected();
    let first = state.poll().expect("clusters are asked for again");
    assert_eq!(first.initial_resource_versions, [("x".to_owned(), "v1".to_owned())].into());
    assert!(first.node.is_some() && first.response_nonce.is_empty());
}

#[test]
fn a_repeated_response_is_let_pass_once() {
    let mut state = open();
    apply(&mut state, response(CLUSTER, "1", &[("x", "v1")], &[]), &[]);
    assert!(state.on_response(response(CLUSTER, "1", &[("x", "v1")], &[])).is_none());
    assert!(state.on_response(response("type.googleapis.com/unknown", "2", &[], &[])).is_none());
}

#[test]
fn what_nobody_asked_for_is_left_out_and_what_is_malformed_is_refused() {
    let mut state = open();
    let mut odd = response(ENDPOINT, "1", &[("b", "v1"), ("a", "v1"), ("a", "v2")], &["c"]);
    let (update, received) = state.on_response(odd.clone()).expect("new");
    assert_eq!((update.upserts.len(), update.upserts[0].name.as_str(), update.removals.len()), (1, "a", 0));
    state.applied(received, Vec::new());
    assert_eq!(state.poll().and_then(|nack| nack.error_detail).expect("refused").message, "a: it is there twice");

    odd.nonce = "2".to_owned();
    odd.resources = vec![resource(CLUSTER, "a", "v3")];
    let nack = apply(&mut state, odd, &[]);
    assert_eq!(nack.error_detail.expect("refused").message, format!("a: its body is of type {CLUSTER}"));
}

#[test]
fn changes_of_interest_ride_on_answers_and_drop_what_is_not_wanted() {
    let mut state = open();
    let (_, received) = state.on_response(response(ENDPOINT, "1", &[("a", "v1")], &[])).expect("new");
    state.applied(received, Vec::new());
    assert_eq!(state.set_interest(ENDPOINT, named(&["b"])), ["a"]);
    let answer = state.poll().expect("an answer");
    assert_eq!(answer.response_nonce, "1");
    assert_eq!(
        (answer.resource_names_subscribe, answer.resource_names_unsubscribe),
        (vec!["b".into()], vec!["a".into()])
    );
    assert!(held(&state, ENDPOINT).is_empty());
    assert_eq!(state.poll(), None);
}

#[test]
fn what_was_not_wanted_for_a_moment_is_asked_for_again() {
    let mut state = open();
    apply(&mut state, response(ENDPOINT, "1", &[("a", "v1")], &[]), &[]);
    state.set_interest(ENDPOINT, named(&[]));
    state.set_interest(ENDPOINT, named(&["a"]));
    assert_eq!(state.poll().expect("it was dropped").resource_names_subscribe, ["a"]);
    assert_eq!(state.poll(), None);
}

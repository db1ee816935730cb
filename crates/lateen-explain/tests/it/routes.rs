//! Which rule takes a request, which nearly did, and where it goes.

use lateen_explain::explain;
use lateen_explain::journey::{Outcome, Stage};

use crate::{ask, question, results, said, shop};

const BY_HEADER: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
      uri: {prefix: /v2/}
    rewrite: {uri: /}
    headers: {request: {set: {x-new: '1'}, remove: [x-old]}}
    route: [{destination: {host: web, subset: v2}}]
    timeout: 3s
    retries: {attempts: 4, perTryTimeout: 1s, retryOn: '5xx'}
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 308}
  - fault: {abort: {percentage: {value: 25}, httpStatus: 418}}
    route:
    - {destination: {host: web, subset: v1}, weight: 90}
    - {destination: {host: web, subset: v2}, weight: 10}
";

#[test]
fn the_rule_that_takes_it_and_the_nearest_that_does_not() {
    let world = shop(BY_HEADER);
    let journey = ask(&world, "client", "http://web/v2/x");
    assert_eq!(said(&journey, Stage::Route), ["virtual host web.default.svc.cluster.local:80 @rules.yaml:18"]);
    let nearest = "only if the header end-user is `jason`; here there is none @rules.yaml:8";
    assert_eq!(said(&journey, Stage::Nearest), [nearest]);
    assert_eq!(results(&journey), ["68 web-v1-0.default", "25 418 a fault on purpose", "8 web-v2-0.default"]);
    let Outcome::Sent { branches } = &journey.first.outcome else { panic!("{:?}", journey.first.outcome) };
    assert_eq!(branches[0].next[0].workloads, ["web-v1-0.default", "web-v1-1.default"]);
    assert!(branches[0].endpoints.iter().all(|host| (0.45..0.55).contains(&host.share)), "{:?}", branches[0].endpoints);
}

#[test]
fn what_the_rule_changes_and_how_long_and_how_often_is_tried() {
    let world = shop(BY_HEADER);
    let headers = [("end-user", "jason"), ("x-old", "1")];
    let journey = explain(&world, &question("client", "http://web/v2/x?y", &headers)).unwrap();
    assert_eq!(
        said(&journey, Stage::Rewrite),
        ["the path /v2/x?y becomes /x?y @", "the header x-new is 1 @", "the header x-old goes @"]
    );
    assert_eq!(said(&journey, Stage::Timeout)[0], "3s for the whole exchange @");
    let forwarding = journey.first.forwarding.as_ref().unwrap();
    assert_eq!((forwarding.retries, forwarding.retry_on.as_slice()), (4, ["5xx".to_owned()].as_slice()));
    assert_eq!(results(&journey), ["100 web-v2-0.default"]);
}

#[test]
fn redirects_say_where_to() {
    let journey = ask(&shop(BY_HEADER), "client", "http://web/old");
    assert_eq!(results(&journey), ["100 308 the route redirects"]);
    assert_eq!(journey.results[0].location.as_deref(), Some("http://web/new"));
}

#[test]
fn nothing_but_a_rule_that_misses_is_404() {
    let rules = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /a}, queryParams: {x: {exact: '1'}}}]
    route: [{destination: {host: web}}]
";
    let journey = ask(&shop(rules), "client", "http://web/a?x=2");
    assert_eq!(results(&journey), ["100 404 no route is for it"]);
    assert_eq!(said(&journey, Stage::Nearest), ["only if the query parameter x is `1` @rules.yaml:8"]);
    let journey = ask(&shop(rules), "client", "http://web/b");
    assert_eq!(said(&journey, Stage::Nearest), ["only if the path begins with `/a`; here it is `/b` @rules.yaml:8"]);
}

#[test]
fn a_subset_that_there_is_not_is_told_by_its_name() {
    let rules = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web, subset: v3}}]}]
";
    let journey = ask(&shop(rules), "client", "http://web/");
    let why = "web.default.svc.cluster.local has no subset `v3`: no DestinationRule in force names it";
    assert_eq!(results(&journey), [format!("100 503 {why}")]);
}

#[test]
fn bytes_go_by_the_port_they_are_for() {
    let journey = ask(&shop(""), "client", "tcp://web:9000");
    assert_eq!(results(&journey).len(), 2);
    assert_eq!(said(&journey, Stage::FilterChain)[0], "read as bytes @shop.yaml:2");
    assert!(said(&journey, Stage::Tls)[0].starts_with("mutual TLS as spiffe://cluster.local/ns/default/sa/client"));
}

#[test]
fn places_outside_are_left_to_themselves_unless_nobody_may_go_there() {
    let journey = ask(&shop(""), "client", "http://example.com/");
    assert_eq!(results(&journey), ["100 203.0.113.1:80"]);
    let rules = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: closed}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['*/*']}]
";
    let journey = ask(&shop(rules), "client", "http://example.com/");
    assert_eq!(journey.results[0].status, Some(502), "{:?}", journey.results);
    let journey = ask(&shop(rules), "client", "https://example.com/");
    assert_eq!((journey.results[0].served_by.as_deref(), journey.results[0].status), (None, None));
}

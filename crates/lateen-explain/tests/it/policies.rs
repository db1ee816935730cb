//! Who may: mTLS on both ends, and each policy's word.

use lateen_explain::explain;
use lateen_explain::journey::Stage;

use crate::{ask, question, results, said, shop};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
";

const ONLY_GET: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-get}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
    to: [{operation: {methods: [GET]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/never]}}]
  - to: [{operation: {paths: [/admin*]}}]
";

#[test]
fn plaintext_meets_strict_mtls() {
    let journey = ask(&shop(STRICT), "naked", "http://web/");
    assert_eq!(results(&journey), ["100 mTLS is STRICT for port 8080, and plaintext comes"]);
    let places: Vec<_> = journey.first.all().into_iter().map(|leg| leg.at.name.clone()).collect();
    assert_eq!(places[0], "naked-0");
    let journey = ask(&shop(STRICT), "client", "http://web/");
    let tls = "mutual TLS ends here: the client is spiffe://cluster.local/ns/default/sa/client (mTLS is STRICT) @rules.yaml:2";
    assert!(said(&journey, Stage::Tls).contains(&tls.to_owned()), "{:?}", said(&journey, Stage::Tls));
}

#[test]
fn each_policy_says_its_word_and_one_decides() {
    let world = shop(ONLY_GET);
    let journey = ask(&world, "client", "http://web/admin/x");
    let verdicts = said(&journey, Stage::Policy);
    assert!(verdicts.contains(&"DENY default/no-admin: rule 1 denies it @rules.yaml:19".to_owned()), "{verdicts:?}");
    assert_eq!(journey.results[0].status, Some(403));
    assert_eq!(journey.results[0].policy.as_deref(), Some("default/no-admin"));
    let journey = ask(&world, "client", "http://web/");
    let verdicts = said(&journey, Stage::Policy);
    let expected = [
        "DENY default/no-admin: no rule of it is about this @rules.yaml:11",
        "ALLOW default/only-get: rule 0 allows it @rules.yaml:8",
    ];
    assert_eq!(verdicts[..2], expected);
    assert!(journey.results.iter().all(|ending| ending.served_by.is_some()));
    let journey = ask(&world, "naked", "http://web/");
    assert_eq!(results(&journey), ["100 403 there are ALLOW policies, and none of them allows it"]);
}

#[test]
fn a_rule_that_turns_mtls_off_meets_one_that_demands_it() {
    let off = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web-plain}
spec: {host: web.default.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}
";
    let journey = ask(&shop(&format!("{STRICT}---{off}")), "client", "http://web/");
    assert_eq!(results(&journey), ["100 503 mTLS is STRICT for port 8080, and plaintext comes"]);
}

#[test]
fn claims_are_taken_for_a_good_token() {
    let rules = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules: [{issuer: me, jwks: '{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-me}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {requestPrincipals: [me/jason]}}]}]
";
    let world = shop(rules);
    assert_eq!(ask(&world, "client", "http://web/").results[0].status, Some(403));
    let mut asked = question("client", "http://web/", &[]);
    asked.claims = Some(lateen_engine::json::object(br#"{"iss": "me", "sub": "jason"}"#).unwrap());
    let journey = explain(&world, &asked).unwrap();
    assert!(journey.results.iter().all(|ending| ending.served_by.is_some()), "{:?}", journey.results);
    let forged = question("client", "http://web/", &[("authorization", "Bearer a.b.c")]);
    assert_eq!(explain(&world, &forged).unwrap().results[0].status, Some(401));
}

#[test]
fn annotations_send_traffic_past_proxies() {
    let rules = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: past}
spec:
  selector: {matchLabels: {app: past}}
  template:
    metadata:
      labels: {app: past}
      annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: '80'}
    spec: {containers: [{name: c, image: i}]}
";
    let journey = ask(&shop(rules), "past", "http://web/");
    let captured = "traffic.sidecar.istio.io/excludeOutboundPorts: it passes the proxy by @";
    assert_eq!(said(&journey, Stage::Capture)[0], captured);
    assert!(said(&journey, Stage::Tls)[0].starts_with("plaintext (mTLS is PERMISSIVE)"));
}

//! Requests from outside, and those that leave through a gateway.

use lateen_explain::journey::{Role, Stage};

use crate::{ask, ask_gateway, results, said, shop};

const GATEWAY: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: default}
spec:
  selector: {istio: front}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: https, port: 443, targetPort: 8443}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  selector: {matchLabels: {istio: front}}
  template:
    metadata:
      labels: {istio: front}
      annotations: {inject.istio.io/templates: gateway}
    spec: {serviceAccountName: front, containers: [{name: istio-proxy, image: auto}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: front}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
    tls: {httpsRedirect: true}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example.com]
    tls: {mode: SIMPLE, credentialName: shop}
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: [db.example.com]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example.com, db.example.com]
  gateways: [front]
  http: [{route: [{destination: {host: web, port: {number: 80}, subset: v2}}]}]
  tls:
  - match: [{port: 443, sniHosts: [db.example.com]}]
    route: [{destination: {host: web, port: {number: 9000}, subset: v1}}]
";

#[test]
fn https_ends_at_the_gateway_and_goes_on_as_mutual_tls() {
    let journey = ask_gateway(&shop(GATEWAY), "https://shop.example.com/cart").unwrap();
    assert_eq!(results(&journey), ["100 web-v2-0.default"]);
    let tls = said(&journey, Stage::Tls);
    assert_eq!(tls[0], "TLS ends here for shop.example.com: the client shows no certificate @");
    assert!(tls[1].starts_with("mutual TLS as spiffe://cluster.local/ns/default/sa/front"), "{tls:?}");
    let roles: Vec<Role> = journey.first.all().iter().map(|leg| leg.role).collect();
    assert_eq!(roles, [Role::Gateway, Role::Server]);
}

#[test]
fn plain_http_is_sent_to_https_where_the_server_says_so() {
    let journey = ask_gateway(&shop(GATEWAY), "http://shop.example.com/cart").unwrap();
    assert_eq!(results(&journey), ["100 301 the client is sent to HTTPS"]);
    assert_eq!(journey.results[0].location.as_deref(), Some("https://shop.example.com/cart"));
}

#[test]
fn tls_passes_by_its_server_name_or_not_at_all() {
    let world = shop(GATEWAY);
    let journey = ask_gateway(&world, "tls://db.example.com").unwrap();
    assert_eq!(said(&journey, Stage::Tls)[0], "TLS for db.example.com passes as it is @");
    assert!(journey.results.iter().all(|ending| ending.served_by.as_deref() == Some("web-v1-0.default")));
    let journey = ask_gateway(&world, "https://other.example.com/").unwrap();
    assert_eq!(results(&journey), ["100 no server on port 8443 is for TLS for other.example.com"]);
}

#[test]
fn a_gateway_that_is_not_there_is_said() {
    let error = ask_gateway(&shop(""), "http://shop.example.com/").unwrap_err();
    assert!(error.to_string().starts_with("there is no gateway: a pod is one"), "{error}");
}

#[test]
fn what_leaves_goes_through_the_egress_gateway_where_rules_send_it_there() {
    let rules = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: way-out}
spec:
  selector: {istio: front}
  servers: [{port: {number: 80, name: http-out, protocol: HTTP}, hosts: [api.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api.example.com]
  gateways: [mesh, way-out]
  http:
  - match: [{gateways: [mesh]}]
    route: [{destination: {host: front, port: {number: 80}}}]
  - match: [{gateways: [way-out]}]
    route: [{destination: {host: api.example.com}}]
";
    let only_front = GATEWAY.split("---").take(2).collect::<Vec<_>>().join("---");
    let journey = ask(&shop(&format!("{only_front}---{rules}")), "client", "http://api.example.com/x");
    let roles: Vec<Role> = journey.first.all().iter().map(|leg| leg.role).collect();
    assert_eq!(roles, [Role::Caller, Role::Gateway, Role::Server]);
    assert_eq!(results(&journey), ["100 api.example.com:80"]);
}

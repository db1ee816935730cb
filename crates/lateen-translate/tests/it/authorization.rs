//! AuthorizationPolicies as requests and connections meet them: translated, compiled by the engine and asked there.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use lateen_engine::config::listener::{ConnectionFacts, Terminal};
use lateen_engine::config::{Resources, Snapshot};
use lateen_engine::filters::http::Kind;
use lateen_engine::filters::network::NetworkFilter;
use lateen_engine::filters::rbac::{PeerNames, RuleSets, Subject};
use lateen_engine::matching::paths::Normalized;
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};
use lateen_engine::metadata::DynamicMetadata;
use lateen_mesh::MeshConfig;

use crate::world::{TYPES, World};

const BASE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp, port: 9000}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: main, image: main}]}}}}
";

/// A request, or a connection if it has no path.
#[derive(Clone, Copy)]
struct Ask<'a> {
    peer: Option<&'a str>,
    port: u16,
    path: &'a str,
    method: &'a str,
    host: &'a str,
    header: Option<(&'a str, &'a str)>,
    ip: &'a str,
    remote: &'a str,
}

const HTTP: Ask<'_> = Ask {
    peer: None,
    port: 80,
    path: "/",
    method: "GET",
    host: "web",
    header: None,
    ip: "10.9.9.9",
    remote: "10.9.9.9",
};
const TCP: Ask<'_> = Ask { port: 9000, path: "", ..HTTP };

const CLIENT: Option<&str> = Some("spiffe://cluster.local/ns/default/sa/client");

/// The web's proxy under these policies, each an action and rules.
fn web(config: &MeshConfig, policies: &[(&str, &str)]) -> (SocketAddr, Snapshot) {
    let mut text = BASE.to_owned();
    for (number, (action, rules)) in policies.iter().enumerate() {
        let rules = if rules.is_empty() { String::new() } else { format!(", rules: {rules}") };
        text += &format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p{number}}}, \
             spec: {{action: {action}{rules}}}}}\n"
        );
    }
    let world = World::new(&[("world.yaml", &text)], config.clone());
    let mut resources = Resources::default();
    for (_, url) in TYPES {
        for named in world.resources("web-0.default", url) {
            resources.upsert(url, &named.name, &named.to_any(), |_| Ok(())).expect("the engine takes what we send");
        }
    }
    let ip =
        world.mesh.workload("default", "web-0").and_then(|workload| workload.ip()).expect("the pod has an address");
    (SocketAddr::new(ip, 0), resources.link(&Snapshot::default()))
}

fn allows(config: &MeshConfig, policies: &[(&str, &str)], ask: Ask<'_>) -> bool {
    let (mut local, snapshot) = web(config, policies);
    local.set_port(ask.port);
    let address = |text: &str| text.parse::<IpAddr>().expect("it is an address");
    let peer = ask.peer.map(|uri| PeerNames { uri_sans: vec![uri.to_owned()], ..PeerNames::default() });
    let direct = SocketAddr::new(address(ask.ip), 40_000);
    let alpn = match (&peer, ask.path) {
        (Some(_), "") => vec![b"istio".to_vec()],
        (Some(_), _) => vec![b"istio-http/1.1".to_vec()],
        (None, "") => Vec::new(),
        (None, _) => vec![b"http/1.1".to_vec()],
    };
    let facts =
        ConnectionFacts { local, remote: direct, direct_remote: direct, tls: peer.is_some(), sni: None, alpn: &alpn };
    let listener = snapshot.listener("virtualInbound").expect("it is there");
    let chain = listener.chains.find(&facts).expect("a chain takes it");
    let metadata = DynamicMetadata::default();
    let subject = |head| Subject {
        head,
        destination: local,
        direct_remote: direct.ip(),
        remote: address(ask.remote),
        peer: peer.as_ref(),
        sni: None,
        metadata: &metadata,
    };
    let passes = |rules: &RuleSets, head| rules.decide(&subject(head)).allows();
    let connection = chain.network.iter().all(|filter| match filter {
        NetworkFilter::Rbac(rbac) => passes(&rbac.rules, None),
        NetworkFilter::ExtAuthz(_) | NetworkFilter::SniDynamicForwardProxy(_) => true,
    });
    let Terminal::Http(manager) = &chain.terminal else { return connection };
    let Normalized::Path(path) = manager.normalization.apply(ask.path) else { return false };
    let mut headers = Headers::default();
    if let Some((name, value)) = ask.header {
        headers.append(HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"));
    }
    let head = RequestHead {
        method: Method::from_bytes(ask.method.as_bytes()).expect("a method"),
        scheme: Scheme::Http,
        authority: Bytes::copy_from_slice(ask.host.as_bytes()),
        path: Bytes::from(path.into_owned()),
        headers,
        version: Version::Http11,
    };
    connection
        && manager.filters.iter().all(|filter| match &filter.kind {
            Kind::Rbac(rbac) => passes(&rbac.0, Some(&head)),
            _ => true,
        })
}

/// What a rule speaks of: it denies in a DENY policy and allows in an ALLOW policy, or neither.
fn speaks(rule: &str, ask: Ask<'_>) -> bool {
    let config = MeshConfig::default();
    let rules = format!("[{rule}]");
    let (allowed, denied) = (allows(&config, &[("ALLOW", &rules)], ask), !allows(&config, &[("DENY", &rules)], ask));
    assert_eq!(allowed, denied, "an ALLOW and a DENY policy differ about {rule}");
    allowed
}

fn client(uri: &str) -> Ask<'_> {
    Ask { peer: Some(uri), ..HTTP }
}

#[test]
fn who_asks_is_told_by_every_field_of_a_source() {
    let far = "spiffe://far/ns/a/sa/b";
    let from = |fields: &str| format!("{{from: [{{source: {{{fields}}}}}]}}");
    for (fields, ask, expected) in [
        ("principals: [cluster.local/ns/default/sa/client]", Ask { peer: CLIENT, ..HTTP }, true),
        ("principals: [cluster.local/ns/default/sa/client]", HTTP, false),
        ("principals: ['*']", Ask { peer: CLIENT, ..HTTP }, true),
        ("principals: ['*']", HTTP, false),
        ("principals: ['*/sa/client']", Ask { peer: CLIENT, ..HTTP }, true),
        ("principals: ['cluster.local/ns/def*']", Ask { peer: CLIENT, ..HTTP }, true),
        ("notPrincipals: [cluster.local/ns/default/sa/client]", Ask { peer: CLIENT, ..HTTP }, false),
        ("notPrincipals: [cluster.local/ns/default/sa/client]", HTTP, true),
        ("namespaces: [default]", Ask { peer: CLIENT, ..HTTP }, true),
        ("namespaces: [d.fault]", Ask { peer: CLIENT, ..HTTP }, false),
        ("namespaces: ['def*']", Ask { peer: CLIENT, ..HTTP }, true),
        ("notNamespaces: [default]", Ask { peer: CLIENT, ..HTTP }, false),
        ("serviceAccounts: [client]", Ask { peer: CLIENT, ..HTTP }, true),
        ("serviceAccounts: [default/client]", Ask { peer: CLIENT, ..HTTP }, true),
        ("serviceAccounts: [other/client]", Ask { peer: CLIENT, ..HTTP }, false),
        ("serviceAccounts: [clien]", Ask { peer: CLIENT, ..HTTP }, false),
        ("notServiceAccounts: [client]", Ask { peer: CLIENT, ..HTTP }, false),
        ("trustDomains: [far]", client(far), true),
        ("trustDomains: [far]", Ask { peer: CLIENT, ..HTTP }, false),
        ("notTrustDomains: [far]", client(far), false),
        ("ipBlocks: [10.9.0.0/16]", HTTP, true),
        ("ipBlocks: [10.8.0.0/16]", Ask { remote: "10.8.1.1", ..HTTP }, false),
        ("notIpBlocks: [10.9.9.9]", HTTP, false),
        ("remoteIpBlocks: [10.8.0.0/16]", Ask { remote: "10.8.1.1", ..HTTP }, true),
        ("remoteIpBlocks: [10.8.0.0/16]", HTTP, false),
        ("notRemoteIpBlocks: [10.8.0.0/16]", Ask { remote: "10.8.1.1", ..HTTP }, false),
    ] {
        assert_eq!(speaks(&from(fields), ask), expected, "{fields} of {:?} {}", ask.peer, ask.remote);
    }
}

#[test]
fn what_is_asked_for_is_told_by_every_field_of_an_operation() {
    let to = |fields: &str| format!("{{to: [{{operation: {{{fields}}}}}]}}");
    let path = |path| Ask { path, ..HTTP };
    let host = |host| Ask { host, ..HTTP };
    for (fields, ask, expected) in [
        ("paths: [/a]", path("/a"), true),
        ("paths: [/a]", path("/a?b"), true),
        ("paths: [/a]", path("/a/b"), false),
        ("paths: ['/a*']", path("/ab"), true),
        ("paths: ['*/b']", path("/a/b"), true),
        ("paths: ['/a/{*}/c']", path("/a/b/c"), true),
        ("paths: ['/a/{*}/c']", path("/a/b/b/c"), false),
        ("paths: ['/a/{**}']", path("/a/b/c"), true),
        ("notPaths: [/a]", path("/a"), false),
        // Row 31 of what is easy to get wrong: the normalised path counts, and two slashes are two.
        ("paths: [/admin]", path("/x/../admin"), true),
        ("paths: [/admin]", path("/x/%2e%2e/admin"), true),
        ("paths: [/admin]", path("//admin"), false),
        // Row 32: the whole host, whatever the case.
        ("hosts: [web.example]", host("WEB.Example"), true),
        ("hosts: [web.example]", host("web.example:8080"), false),
        ("hosts: ['web.example:*']", host("web.example:8080"), true),
        ("notHosts: [web.example]", host("web.example"), false),
        ("methods: [GET]", HTTP, true),
        ("methods: [GET]", Ask { method: "get", ..HTTP }, false),
        ("notMethods: [GET]", HTTP, false),
        ("ports: ['80']", HTTP, true),
        ("ports: ['81']", HTTP, false),
        ("notPorts: ['80']", HTTP, false),
    ] {
        assert_eq!(speaks(&to(fields), ask), expected, "{fields} of {} {} {}", ask.method, ask.host, ask.path);
    }
}

#[test]
fn conditions_hold_by_their_values_and_by_what_they_may_not_be() {
    let when = |key: &str, values: &str| format!("{{when: [{{key: '{key}', {values}}}]}}");
    let role = |value| Ask { header: Some(("x-role", value)), ..HTTP };
    for (key, values, ask, expected) in [
        ("request.headers[x-role]", "values: [admin]", role("admin"), true),
        ("request.headers[X-Role]", "values: [admin]", role("admin"), true),
        ("request.headers[x-role]", "values: [admin]", role("user"), false),
        ("request.headers[x-role]", "values: ['*']", HTTP, false),
        ("request.headers[x-role]", "notValues: [admin]", HTTP, true),
        ("request.headers[x-role]", "notValues: [admin]", role("admin"), false),
        ("source.ip", "values: [10.9.9.9]", HTTP, true),
        ("source.ip", "notValues: [10.9.9.9]", HTTP, false),
        ("remote.ip", "values: [10.8.0.0/16]", Ask { remote: "10.8.1.1", ..HTTP }, true),
        ("source.namespace", "values: [default]", Ask { peer: CLIENT, ..HTTP }, true),
        ("source.principal", "notValues: ['*/sa/client']", Ask { peer: CLIENT, ..HTTP }, false),
        ("source.serviceAccount", "values: [client]", Ask { peer: CLIENT, ..HTTP }, true),
        ("source.trustDomain", "values: [cluster.local]", Ask { peer: CLIENT, ..HTTP }, true),
        ("destination.port", "values: ['80']", HTTP, true),
        ("destination.port", "notValues: ['80']", HTTP, false),
        ("destination.ip", "values: [192.0.2.0/24]", HTTP, false),
        ("connection.sni", "values: [a.test]", HTTP, false),
    ] {
        assert_eq!(speaks(&when(key, values), ask), expected, "{key} {values}");
    }
}

#[test]
fn without_requests_denials_widen_and_permissions_narrow() {
    let config = MeshConfig::default();
    let path = "[{to: [{operation: {paths: [/a]}}]}]";
    assert!(!allows(&config, &[("DENY", path)], TCP), "a condition that cannot be checked is dropped");
    assert!(!allows(&config, &[("ALLOW", path)], TCP), "a rule that cannot be checked allows nothing");
    assert!(allows(&config, &[("DENY", "[{to: [{operation: {paths: [/a], ports: ['80']}}]}]")], TCP));
    assert!(allows(&config, &[("ALLOW", "[{from: [{source: {ipBlocks: [10.9.9.9]}}]}]")], TCP));
}

/// istio#61126: nobody is let in since a policy that speaks of them could not be kept. That it could not be is told.
#[test]
fn what_cannot_be_enforced_as_written_is_closed() {
    let config = MeshConfig::default();
    let nobodys = "CUSTOM, provider: {name: nobody}";
    let path = "[{to: [{operation: {paths: [/a]}}]}]";
    for ask in [Ask { path: "/a", ..HTTP }, TCP] {
        assert!(!allows(&config, &[(nobodys, "[{}]")], ask), "the authorizer is not known: {}", ask.path);
        assert!(!allows(&config, &[("ALLOW", "[{}]"), (nobodys, "[{}]")], ask));
        assert!(!allows(&config, &[(nobodys, path)], ask), "what it speaks of, or may");
    }
    assert!(allows(&config, &[(nobodys, path)], Ask { path: "/b", ..HTTP }), "it does not speak of that");
}

#[test]
fn policies_are_asked_in_their_order() {
    let config = MeshConfig::default();
    let everything = "[{}]";
    for (policies, expected) in [
        (&[][..], true),
        // Row 35: an empty ALLOW policy denies, none allows, AUDIT never denies.
        (&[("ALLOW", "")][..], false),
        (&[("ALLOW", everything)], true),
        (&[("AUDIT", everything)], true),
        (&[("AUDIT", "")], true),
        (&[("ALLOW", everything), ("DENY", everything)], false),
        (&[("ALLOW", ""), ("ALLOW", everything)], true),
        (&[("AUDIT", everything), ("ALLOW", "")], false),
    ] {
        assert_eq!(allows(&config, policies, HTTP), expected, "{policies:?}");
        assert_eq!(allows(&config, policies, TCP), expected, "{policies:?} on TCP");
    }
}

#[test]
fn the_local_trust_domain_and_its_aliases_stand_for_each_other() {
    let config = MeshConfig {
        trust_domain: "td1".to_owned(),
        trust_domain_aliases: vec!["td2".to_owned()],
        ..MeshConfig::default()
    };
    let rule = "[{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]";
    for (domain, expected) in [("td1", true), ("td2", true), ("td3", false)] {
        let uri = format!("spiffe://{domain}/ns/a/sa/b");
        assert_eq!(allows(&config, &[("ALLOW", rule)], client(&uri)), expected, "{domain}");
    }
}

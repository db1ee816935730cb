//! Tokens (JSON Web Tokens) that claim what nobody has signed, and servers of keys that do harm.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lateen_testing::peer::Response;
use lateen_testing::tokens::{self, Signer, encode, key_set, signed_with_shared};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::proxy::Setup;
use crate::site::Site;

/// A filter that asks for tokens on `/t`, of one provider with these fields.
fn filter(fields: &str, requires: &str) -> &'static str {
    let text = format!(
        r#"{{name: jwt, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication,
          bypass_cors_preflight: true, providers: {{p: {{issuer: us, {fields}}}}}, rules: [{{match: {{prefix: /t}}, requires: {requires}}}]}}}},"#
    );
    text.leak()
}

const REQUIRED: &str = "{provider_name: p}";
const OPTIONAL: &str = "{requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}}";

/// With these keys in the configuration.
async fn guarded(keys: &str, fields: &str, requires: &str) -> Site {
    let filters = filter(&format!("local_jwks: {{inline_string: '{keys}'}}, {fields}"), requires);
    Site::start(Setup { filters, ..Setup::default() }).await
}

impl Site {
    async fn bearing(&self, token: &str) -> Response {
        self.ask(format!("GET /t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")).await
    }
}

/// The answer to a bad token.
fn assert_refused(response: &Response, what: &str) {
    let challenge = response.header("www-authenticate").unwrap_or_default();
    assert_eq!(response.status, 401, "{what}: {response:?}");
    assert!(challenge.starts_with("Bearer realm=\"http://h/t"), "{what}: {challenge}");
    assert!(challenge.ends_with("error=\"invalid_token\""), "{what}: {challenge}");
}

fn claims() -> Value {
    json!({"iss": "us", "sub": "somebody", "exp": tokens::now() + 600})
}

/// Seven kinds of tokens: who signs them, and by what.
fn kinds() -> Vec<(Signer, &'static str)> {
    vec![
        (Signer::rsa("1"), "RS256"),
        (Signer::rsa("2"), "RS512"),
        (Signer::rsa("3"), "PS256"),
        (Signer::ec("ES256", "4"), "ES256"),
        (Signer::ec("ES384", "5"), "ES384"),
        (Signer::ec("ES512", "6"), "ES512"),
        (Signer::ed25519("7"), "EdDSA"),
    ]
}

/// What an attacker makes of a good token of this kind.
fn mutations(signer: &Signer, algorithm: &str, stranger: &Signer) -> Vec<(&'static str, String)> {
    let claims = claims().to_string();
    let header = |fields: Value| fields.to_string();
    let usual = json!({"alg": algorithm, "kid": signer.id()});
    let good = signer.sign(algorithm, &usual.to_string(), &claims);
    let parts: Vec<&str> = good.split('.').collect();
    let (head, payload, signature) = (parts[0], parts[1], parts[2]);
    let public = signer.public().to_string();
    let shared = header(json!({"alg": "HS256", "kid": signer.id()}));
    let admin = json!({"iss": "us", "sub": "admin", "exp": tokens::now() + 600}).to_string();
    let none = |name: &str| format!("{}.{}.", encode(header(json!({ "alg": name }))), encode(&admin));
    let by_stranger = |fields: Value| stranger.sign(stranger.algorithm(), &header(fields), &admin);
    let own = stranger.algorithm();
    let relabel = |name: &str| signer.sign(algorithm, &header(json!({"alg": name, "kid": signer.id()})), &claims);
    let other = if algorithm == "RS256" { "RS384" } else { "RS256" };
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    vec![
        ("no algorithm", none("none")),
        ("no algorithm, large", none("NONE")),
        ("no algorithm, mixed", none("nOnE")),
        ("no algorithm and a signature", format!("{}.{}.{signature}", encode(header(json!({"alg": "none"}))), payload)),
        ("no signature", format!("{head}.{payload}.")),
        ("no signature and no dot", format!("{head}.{payload}")),
        ("a blank signature", format!("{head}.{payload}.%20")),
        ("an empty key's secret", signed_with_shared(b"", &shared, &admin)),
        ("the public key as a secret", signed_with_shared(public.as_bytes(), &shared, &admin)),
        ("the key set as a secret", signed_with_shared(key_set([signer]).as_bytes(), &shared, &admin)),
        ("another payload", format!("{head}.{}.{signature}", encode(&admin))),
        ("another header", format!("{}.{payload}.{signature}", encode(header(json!({ "alg": algorithm }))))),
        ("a signature that is changed", format!("{head}.{payload}.{first}{}", &signature[1..])),
        ("a signature that is short", format!("{head}.{payload}.{}", &signature[..signature.len() / 2])),
        ("a signature twice", format!("{head}.{payload}.{signature}{signature}")),
        ("a signature of zeros", format!("{head}.{payload}.{}", encode(vec![0; 64]))),
        ("a fourth part", format!("{good}.{signature}")),
        ("padding", format!("{good}==")),
        ("a stranger's", by_stranger(json!({"alg": own, "kid": signer.id()}))),
        ("a stranger's without an id", by_stranger(json!({ "alg": own }))),
        ("a key of its own", by_stranger(json!({"alg": own, "jwk": stranger.public()}))),
        ("keys of its own elsewhere", by_stranger(json!({"alg": own, "jku": "http://127.0.0.1:1/keys"}))),
        ("certificates of its own", by_stranger(json!({"alg": own, "x5c": ["MIIB"], "x5u": "http://127.0.0.1:1/"}))),
        ("an id that is a path", by_stranger(json!({"alg": own, "kid": "../../../../dev/null"}))),
        ("an id that is a query", by_stranger(json!({"alg": own, "kid": "' UNION SELECT 'key' --"}))),
        ("an id that is a command", by_stranger(json!({"alg": own, "kid": "|touch /tmp/owned"}))),
        ("an id of nobody", signer.sign(algorithm, &header(json!({"alg": algorithm, "kid": "0"})), &claims)),
        ("an id that is no text", signer.sign(algorithm, &header(json!({"alg": algorithm, "kid": 1})), &claims)),
        ("another algorithm's name", relabel(other)),
        ("a name in small letters", relabel(&algorithm.to_ascii_lowercase())),
        ("a list for a name", signer.sign(algorithm, &header(json!({"alg": [algorithm]})), &claims)),
        ("two names", signer.sign(algorithm, &format!(r#"{{"alg":"none","alg":"{algorithm}"}}"#), &claims)),
        ("two issuers", signer.sign(algorithm, &usual.to_string(), r#"{"iss":"them","iss":"us","exp":99999999999}"#)),
        (
            "extensions that must be known",
            signer.sign(algorithm, &header(json!({"alg": algorithm, "crit": ["b64"], "b64": false})), &claims),
        ),
        ("JSON that is none", signer.sign(algorithm, &usual.to_string(), "{iss: us}")),
        ("a payload without end", signer.sign(algorithm, &usual.to_string(), &"[".repeat(5000))),
    ]
}

#[tokio::test]
async fn nothing_but_the_key_of_the_algorithm_verifies_a_token() {
    let kinds = kinds();
    let stranger = Signer::ec("ES256", "stranger");
    let site = guarded(&key_set(kinds.iter().map(|(signer, _)| signer)), "", REQUIRED).await;
    for (signer, algorithm) in &kinds {
        let header = json!({"alg": algorithm, "kid": signer.id()}).to_string();
        let good = signer.sign(algorithm, &header, &claims().to_string());
        assert_eq!(site.bearing(&good).await.status, 200, "{algorithm}");
        assert!(!site.reached_once().contains(&good), "a token is taken out");
        for (what, token) in mutations(signer, algorithm, &stranger) {
            assert_refused(&site.bearing(&token).await, &format!("{algorithm}: {what}"));
        }
    }
    site.unharmed().await;
}

#[tokio::test]
async fn times_that_are_none_or_over_are_refused() {
    let signer = Signer::ec("ES256", "k");
    let site = guarded(&key_set([&signer]), "", REQUIRED).await;
    let now = tokens::now();
    let with = |claims: &str| signer.sign("ES256", r#"{"alg":"ES256"}"#, &format!(r#"{{"iss":"us"{claims}}}"#));
    for claims in [
        format!(r#","exp":{}"#, now - 120),
        r#","exp":0"#.to_owned(),
        r#","exp":-1"#.to_owned(),
        r#","exp":-1e400"#.to_owned(),
        r#","exp":1e400"#.to_owned(),
        r#","exp":1e20"#.to_owned(),
        format!(r#","exp":"{}""#, now + 600),
        r#","exp":null"#.to_owned(),
        r#","exp":true"#.to_owned(),
        format!(r#","exp":[{}]"#, now + 600),
        format!(r#","exp":{{"$gt":{now}}}"#),
        format!(r#","exp":{},"exp":{}"#, now + 600, now - 600),
        format!(r#","nbf":{}"#, now + 120),
        format!(r#","nbf":"{}""#, now - 120),
        r#","nbf":-1"#.to_owned(),
        r#","nbf":false"#.to_owned(),
        format!(r#","iat":"{now}""#),
        r#","iat":-1"#.to_owned(),
    ] {
        assert_refused(&site.bearing(&with(&claims)).await, &claims);
    }
    // As in Envoy: a token may be endless unless the configuration says otherwise, and when it was issued decides nothing.
    for claims in [String::new(), format!(r#","exp":{}.5"#, now + 600), format!(r#","iat":{}"#, now + 600)] {
        assert_eq!(site.bearing(&with(&claims)).await.status, 200, "{claims}");
        site.reached_once();
    }
    site.unharmed().await;
    let site = guarded(&key_set([&signer]), "require_expiration: true,", REQUIRED).await;
    assert_refused(&site.bearing(&with("")).await, "endless");
    site.unharmed().await;
}

#[tokio::test]
async fn one_bad_token_among_good_ones_spoils_all() {
    let signer = Signer::ec("ES256", "k");
    let fields = "audiences: [web], from_headers: [{name: authorization, value_prefix: 'Bearer '}, {name: x-token}], \
                  from_params: [token], from_cookies: [token],";
    let site = guarded(&key_set([&signer]), fields, REQUIRED).await;
    let with = |audience: Value| signer.token(&json!({"iss": "us", "aud": audience, "exp": tokens::now() + 600}));
    let (good, bad) = (with(json!("web")), signer.token(&json!({"iss": "us", "aud": "web", "exp": 1})));
    assert_eq!(site.bearing(&with(json!(["a", "web"]))).await.status, 200, "one of several audiences");
    site.reached_once();
    for audience in [json!("web2"), json!(["WEB"]), json!([]), json!("")] {
        let response = site.bearing(&with(audience.clone())).await;
        assert_eq!((response.status, &*response.body), (403, "Audiences in Jwt are not allowed"), "{audience}");
    }
    for audience in [json!(5), json!(["web", 5]), json!({"web": "web"}), Value::Null] {
        assert_refused(&site.bearing(&with(audience.clone())).await, &audience.to_string());
    }
    for (first, second) in [(&good, &bad), (&bad, &good)] {
        for (target, lines) in [
            ("/t", format!("Authorization: Bearer {first}\r\nX-Token: {second}\r\n")),
            ("/t", format!("X-Token: {first}\r\nX-Token: {second}\r\n")),
            ("/t", format!("Authorization: Bearer {first}\r\nCookie: token={second}\r\n")),
            ("/t", format!("Authorization: Bearer {first}\r\nAuthorization: Bearer {second}\r\n")),
            (&*format!("/t?token={first}"), format!("X-Token: {second}\r\n")),
            (&*format!("/t?x&token={first}"), format!("Authorization: Bearer {second}\r\n")),
        ] {
            let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).await;
            assert_refused(&response, &format!("{target}\n{lines}"));
        }
    }
    site.unharmed().await;
}

#[tokio::test]
async fn optional_tokens_are_checked_preflights_pass_and_written_headers_are_the_filters_own() {
    let signer = Signer::ec("ES256", "k");
    let fields = "forward_payload_header: x-jwt-payload, claim_to_headers: [{header_name: x-jwt-iss, claim_name: iss}, \
                  {header_name: x-jwt-role, claim_name: role}],";
    let site = guarded(&key_set([&signer]), fields, OPTIONAL).await;
    let unknown = signer.token(&json!({"iss": "them", "exp": tokens::now() + 600}));
    assert_refused(&site.bearing(&unknown).await, "an unknown issuer");
    let expired = signer.token(&json!({"iss": "us", "exp": 1}));
    let preflight =
        |lines: &str| format!("OPTIONS /t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {expired}\r\n{lines}\r\n");
    assert_eq!(site.ask(preflight("Origin: o\r\nAccess-Control-Request-Method: GET\r\n")).await.status, 200);
    site.reached_once();
    for lines in [
        "",
        "Origin: o\r\n",
        "Access-Control-Request-Method: GET\r\n",
        "Origin:\r\nAccess-Control-Request-Method: \r\n",
    ] {
        assert_refused(&site.ask(preflight(lines)).await, lines);
    }
    let forged = "X-Jwt-Iss: admin\r\nX-JWT-ROLE: admin\r\nx-jwt-payload: YWRtaW4\r\n";
    let good = signer.token(&claims());
    for (target, lines) in [
        ("/t", forged.to_owned()),
        ("/elsewhere", forged.to_owned()),
        ("/t", format!("{forged}Authorization: Bearer {good}\r\n{forged}")),
    ] {
        assert_eq!(site.get(target, &lines).await.0, 200);
        let reached = site.reached_once();
        assert!(!reached.contains("admin") && !reached.contains("YWRtaW4"), "{reached}");
        assert_eq!(reached.contains("x-jwt-iss: us\r\n"), lines.contains("Bearer"), "{reached}");
    }
    site.unharmed().await;
}

/// A server of keys that answers what the test has it answer.
struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (answer, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, count) = (Arc::clone(&answers), Arc::clone(&count));
                tokio::spawn(async move {
                    let _ = stream.read_buf(&mut Vec::new()).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.lock().expect("nobody panics with it").clone();
                    // The proxy may have had enough.
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        Self { address, answer, asked }
    }

    fn answers(&self, status: &str, lines: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{lines}\r\n", body.len());
        *self.answer.lock().expect("nobody panics with it") = [head.as_bytes(), body].concat();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A proxy that fetches its keys here, and keeps them for so long.
    async fn site(&self, cache: &str) -> Site {
        let fields = format!(
            "remote_jwks: {{http_uri: {{uri: 'http://keys.test/k', cluster: keys, timeout: 2s}}, cache_duration: {cache}}}"
        );
        let clusters = format!(
            "- {{name: keys, type: STATIC, connect_timeout: 2s, load_assignment: {{cluster_name: keys, endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}",
            self.address.port()
        );
        let setup = Setup { filters: filter(&fields, OPTIONAL), clusters: clusters.leak(), ..Setup::default() };
        Site::start(setup).await
    }
}

#[tokio::test]
async fn a_server_of_keys_that_is_broken_lets_nobody_in_and_nobody_else_out() {
    let signer = Signer::ec("ES256", "k");
    let keys = key_set([&signer]);
    let trap = KeyServer::start().await;
    trap.answers("200 OK", "", keys.as_bytes());
    let elsewhere = format!("Location: http://{}/keys\r\n", trap.address);
    let huge = vec![b' '; (1 << 20) + 1];
    let answers: [(&str, &str, &[u8]); 9] = [
        ("500 Internal Server Error", "", keys.as_bytes()),
        ("204 No Content", "", b""),
        ("404 Not Found", "", keys.as_bytes()),
        ("302 Found", &elsewhere, keys.as_bytes()),
        ("301 Moved", "Location: http://169.254.169.254/latest/meta-data\r\n", keys.as_bytes()),
        ("200 OK", "", b"<html>keys</html>"),
        ("200 OK", "", b"{\"keys\":[]}"),
        ("200 OK", "", b""),
        ("200 OK", "", &huge),
    ];
    for (status, lines, body) in answers {
        let server = KeyServer::start().await;
        server.answers(status, lines, body);
        let site = server.site("600s").await;
        let response = site.bearing(&signer.token(&claims())).await;
        assert_refused(&response, &format!("{status} {lines}"));
        assert_eq!(response.body, "Jwks remote fetch is failed", "{status}: and nothing that the server said");
        assert_eq!(site.get("/t", "").await.0, 200, "no token is as before");
        site.reached_once();
        site.unharmed().await;
    }
    assert_eq!(trap.asked(), 0, "redirects are not followed");
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_and_those_that_are_known_are_kept() {
    let signer = Signer::ec("ES256", "k");
    let server = KeyServer::start().await;
    server.answers("200 OK", "", key_set([&signer]).as_bytes());
    let site = server.site("600s").await;
    let token = signer.token(&claims());
    let statuses = at_once(&site, &token, 5).await;
    assert_eq!(statuses, vec![200; 5]);
    assert_eq!(site.reached().len(), 5);
    assert_eq!(server.asked(), 1, "one fetch for all who wait");
    server.answers("500 Internal Server Error", "", b"");
    assert_eq!(site.bearing(&token).await.status, 200, "what is known is known");
    site.reached_once();
    assert_refused(&site.bearing(&Signer::ec("ES256", "k").token(&claims())).await, "a stranger's");
    assert_eq!(server.asked(), 1, "a stranger's token is no reason to fetch again");
    assert_eq!(site.proxy.stat("http.main.jwt_authn.jwks_fetch_success").await, 1);
    assert_eq!(site.proxy.stat("http.main.jwt_authn.denied").await, 1);
    site.unharmed().await;
}

/// The same request many times at once.
async fn at_once(site: &Site, token: &str, count: usize) -> Vec<u16> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = site.proxy.connect().await;
        client.send(format!("GET /t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
        clients.push(client);
    }
    let mut statuses = Vec::new();
    for mut client in clients {
        statuses.push(client.response().await.status);
    }
    statuses
}

#[tokio::test]
async fn keys_that_are_over_are_not_used_though_no_others_can_be_had() {
    let signer = Signer::ec("ES256", "k");
    let server = KeyServer::start().await;
    server.answers("200 OK", "", key_set([&signer]).as_bytes());
    let site = server.site("0.5s").await;
    let token = signer.token(&claims());
    assert_eq!(site.bearing(&token).await.status, 200);
    site.reached_once();
    server.answers("500 Internal Server Error", "", b"");
    let refused = lateen_testing::eventually::eventually("the keys are over", async || {
        let response = site.bearing(&token).await;
        site.reached();
        (response.status == 401).then_some(response)
    });
    assert_refused(&refused.await, "keys that are over");
    site.unharmed().await;
}

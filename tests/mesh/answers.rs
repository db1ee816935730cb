//! One mesh of our proxies and one of Envoys, the same rules, the same questions: each must be answered alike, and the
//! application must have seen the same request.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::programs::Programs;
use crate::running::Mesh;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// Outside, at the gateway.
    Outside,
    /// A pod of the mesh, by name and port of a service.
    Inside(&'static str, u16),
    /// A pod without a proxy, by the address of the pod of a deployment.
    Plaintext(&'static str, u16),
}

/// Paths and headers that meet a rule each, for those outside and inside.
const RULES: &[&str] = &[
    "GET /exact",
    "GET /EXACT",
    "GET /exact/not",
    "PUT /v12/books/7",
    "GET /v12/books/7",
    "GET /by-header/x\nx-user: jane\nx-secret: s",
    "GET /by-header/x\nx-user: ann",
    "GET /by-header/x\nx-user: jane\nx-not: here",
    "GET /by-query?q=1&r=aa",
    "GET /by-query?q=1&r=b",
    "GET /by-scheme",
    "GET /redirect/there",
    "GET /secure/x?y=z",
    "GET /abort",
    "POST /grpc-abort\ncontent-type: application/grpc\nte: trailers\ncontent-length: 0",
    "GET /slow2",
    "GET /slow0",
    "GET /retried",
    "GET /retried\nx-envoy-max-retries: 0",
    "OPTIONS /cors\norigin: https://a.test\naccess-control-request-method: PUT",
    "OPTIONS /cors\norigin: https://x.b.test\naccess-control-request-method: PUT",
    "OPTIONS /cors\norigin: https://other.test\naccess-control-request-method: PUT",
    "GET /cors\norigin: https://a.test",
    "GET /nowhere",
    "GET /mirrored",
    "GET /unknown",
    "GET /anything//double/./dots/../x",
    "GET /anything/a%2Fb%2e%41",
    "GET /anything/forbidden/x",
    "GET /anything/%66orbidden",
    "DELETE /anything/x\nx-denied: 1",
    "DELETE /anything/x",
    "GET /anything/only-mesh/x",
    "POST /anything/body\ncontent-length: 5\n\nhello",
    "HEAD /anything/head",
    "GET /status/204",
    "GET /status/304",
    "GET /status/500",
    "GET /anything/fwd\nx-forwarded-for: 1.2.3.4\nx-forwarded-proto: https",
    "GET /anything/xfcc\nx-forwarded-client-cert: By=me;URI=spiffe://cluster.local/ns/default/sa/admin",
    "GET /anything/id\nx-request-id: mine",
    "GET /anything/internal\nx-envoy-internal: true\nx-envoy-upstream-rq-timeout-ms: 1\nx-envoy-retry-on: 5xx",
    "GET /anything/hop\nconnection: close, x-hop\nx-hop: 1\nkeep-alive: 5",
];

/// What no rule is for, at other places.
const ELSEWHERE: &[(From, &str)] = &[
    (From::Inside("rpc", 7000), "GET /http1-to-grpc"),
    (From::Inside("empty", 80), "GET /"),
    (From::Inside("httpbin", 8001), "GET /anything/no-such-port"),
    (From::Plaintext("httpbin", 8080), "GET /anything/plaintext"),
    (From::Plaintext("httpbin", 8080), "GET /anything/only-mesh/x"),
    (From::Plaintext("httpbin", 8080), "GET /anything/forbidden"),
    (From::Plaintext("httpbin", 8080), "BREW /anything/pot"),
    (From::Plaintext("httpbin", 8080), "GET /anything/xfcc\nx-forwarded-client-cert: By=me;URI=spiffe://x/y"),
    (From::Outside, "GET /anything/other-host\nhost: other.test"),
    (From::Outside, "GET /anything/port\nhost: way.test:8080"),
    (From::Outside, "GET /anything/case\nhost: WAY.test"),
];

#[test]
fn our_proxy_and_a_real_envoy_answer_alike_in_the_mesh() {
    let Some(envoy) = lateen_tests::envoy() else { return };
    let questions = questions();
    let ours = ask(&Mesh::of_by(Programs::ours(), "services"), &questions);
    let theirs = ask(&Mesh::of_by(Programs::with_envoy(&envoy, "DELTA_GRPC"), "services"), &questions);
    let differences: Vec<String> = questions
        .iter()
        .zip(ours.iter().zip(&theirs))
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|((from, text), (ours, theirs))| format!("{from:?} {text:?}:\n{}", difference(ours, theirs)))
        .collect();
    let statuses = theirs.iter().filter_map(|answer| answer.get("status").cloned()).collect::<Vec<_>>();
    eprintln!("{} questions, {} differences", questions.len(), differences.len());
    for (status, at_least) in [("200", 30), ("403", 3), ("404", 3), ("503", 3), ("504", 1), ("308", 1), ("418", 1)] {
        let count = statuses.iter().filter(|found| found.as_str() == status).count();
        assert!(count >= at_least, "the rules are in force: {count} answers {status} in {statuses:?}");
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), questions.len(), differences.join("\n"));
}

fn questions() -> Vec<(From, String)> {
    let mut questions = Vec::new();
    for text in RULES {
        questions.push((From::Outside, format!("{}\nhost: way.test{}", first_line(text), rest(text))));
        questions
            .push((From::Inside("httpbin", 8000), format!("{}\nhost: httpbin:8000{}", first_line(text), rest(text))));
    }
    for (from, text) in ELSEWHERE {
        let host = if text.contains("host: ") { String::new() } else { "\nhost: httpbin:8080".to_owned() };
        questions.push((*from, format!("{}{host}{}", first_line(text), rest(text))));
    }
    questions
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

fn rest(text: &str) -> &str {
    &text[first_line(text).len()..]
}

/// Parts of an answer by their names.
type Answer = BTreeMap<String, String>;

fn ask(mesh: &Mesh, questions: &[(From, String)]) -> Vec<Answer> {
    mesh.apply("tests/mesh/input/answers.yaml");
    let address = &mesh.address_of("httpbin");
    // Envoy closes a connection a second after it has answered what it did not have to ask anybody for.
    std::thread::scope(|scope| {
        let ask = |chunk: &[(From, String)]| -> Vec<Answer> {
            chunk.iter().map(|(from, text)| parts(&asked(mesh, *from, text, address))).collect()
        };
        let asking: Vec<_> =
            questions.chunks(questions.len().div_ceil(8)).map(|chunk| scope.spawn(move || ask(chunk))).collect();
        asking.into_iter().flat_map(|thread| thread.join().expect("each question is answered")).collect()
    })
}

fn asked(mesh: &Mesh, from: From, text: &str, address: &str) -> String {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut head: Vec<&str> = head.split('\n').collect();
    let first = format!("{} HTTP/1.1", head.remove(0));
    let close = if head.iter().any(|line| line.starts_with("connection:")) { "" } else { "connection: close\r\n" };
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("{first}\r\n{head}{close}\r\n{body}");
    match from {
        From::Outside => {
            let mut stream = TcpStream::connect(mesh.gateway()).expect("the gateway is there");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time-out");
            stream.write_all(request.as_bytes()).expect("the gateway reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("the gateway answers and closes");
            String::from_utf8_lossy(&answer).into_owned()
        }
        From::Inside(host, port) => said(mesh, "deploy/client", host, port, &request),
        From::Plaintext(_, port) => said(mesh, "deploy/outsider", address, port, &request),
    }
}

fn said(mesh: &Mesh, from: &str, host: &str, port: u16, request: &str) -> String {
    let escaped = request.replace('%', "%%").replace('\r', "\\r").replace('\n', "\\n");
    mesh.converse(from, host, port, &format!("printf '{escaped}' >&3 && timeout 10 cat <&3 2>/dev/null"))
}

/// Headers of which only that they are there is compared: their values are of the moment.
const OF_THE_MOMENT: &[&str] = &["date", "x-request-id", "x-envoy-upstream-service-time"];

fn parts(answer: &str) -> Answer {
    let mut parts = Answer::new();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        parts.insert("status".to_owned(), format!("none: {answer:?}"));
        return parts;
    };
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    parts.insert("status".to_owned(), status.split(' ').nth(1).unwrap_or_default().to_owned());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let value = if OF_THE_MOMENT.contains(&name) { "(present)" } else { value };
        parts.entry(format!("header {name}")).or_default().push_str(&format!("{value}|"));
    }
    match serde_json::from_str::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(fields)) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::Object(inner) if name == "headers" => {
                        parts.extend(inner.iter().map(|(name, value)| (format!("saw {name}"), seen(name, value))));
                    }
                    value => drop(parts.insert(format!("body {name}"), value.to_string())),
                }
            }
            // Follows from the rest, and hashes of certificates are as long everywhere.
            parts.remove("header content-length");
        }
        _ => drop(parts.insert("body".to_owned(), body.to_owned())),
    }
    parts
}

/// A header as the application saw it, without what is of this mesh alone: addresses, and hashes of certificates.
fn seen(name: &str, value: &serde_json::Value) -> String {
    if OF_THE_MOMENT.contains(&name) && value != &serde_json::json!(["mine"]) {
        return "(present)".to_owned();
    }
    let text = value.to_string();
    let hidden = |text: &str, start: &str, is: fn(char) -> bool| -> String {
        let mut parts = text.split(start);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| format!("{all}{start}_{}", part.trim_start_matches(is)))
    };
    let text = hidden(&text, "Hash=", |character| character.is_ascii_hexdigit());
    hidden(&text, "10.244.", |character| character.is_ascii_digit() || character == '.')
}

fn difference(ours: &Answer, theirs: &Answer) -> String {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let shown = |answer: &Answer, name: &String| answer.get(name).cloned().unwrap_or_else(|| "(absent)".to_owned());
    let differing = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differing
        .map(|name| format!("  {name}\n    envoy:  {}\n    lateen: {}", shown(theirs, name), shown(ours, name)))
        .collect::<Vec<_>>()
        .join("\n")
}

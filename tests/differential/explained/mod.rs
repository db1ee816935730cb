//! What `lateen explain` says beforehand is what a proxy does: requests at random to meshes made at random, by a fixed seed, and
//! for each the answer, the host, and what the host was sent. Our proxy is held to it, and Envoy on the same bootstrap.

mod bootstrap;
mod meshes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use lateen_explain::journey::{Head, Journey, Leg, Outcome};
use lateen_explain::{From, Objects, Question, Url, World, explain};
use lateen_mesh::MeshConfig;
use serde_json::json;

use crate::proxy::{Observed, Proxy};
use crate::table::Row;
use crate::upstream::Upstream;
use meshes::{Asked, Dice};

/// Services of each mesh, each with rules of its own.
const SERVICES: usize = 40;
const REQUESTS: usize = 1_000;
const SEED: u64 = 20_261_128;
/// Headers that rules are about, or change.
const HEADERS: [&str; 3] = ["x-a", "x-b", "x-c"];

/// What may come of a request.
#[derive(Debug)]
enum Expected {
    /// A status that no host gives; where to, of redirects.
    Answer(u16, Option<String>),
    /// One of these hosts answers, and is sent this.
    Host(BTreeSet<String>, Option<Head>),
}

fn world(text: &str) -> World {
    let parsed = lateen_api::parse_documents("generated.yaml", text, "default");
    let found = parsed.objects.iter().flat_map(lateen_api::validate);
    let wrong = parsed.diagnostics.iter().cloned().chain(found).find(|found| found.is_error());
    assert!(wrong.is_none(), "{}", wrong.map(|found| found.to_string()).unwrap_or_default());
    let aged = parsed.objects.into_iter().zip(1..).map(|(object, age)| object.with_age(age)).collect();
    World::new(aged, Objects::Running, MeshConfig::default())
}

fn question(from: &str, asked: &Asked) -> Question {
    Question {
        from: From::Workload { name: from.to_owned(), namespace: "default".to_owned() },
        url: Url::parse(&format!("http://s{}{}", asked.service, asked.target)).expect("it is an address"),
        via: None,
        method: Method::from_bytes(asked.method.as_bytes()).expect("it is a method"),
        headers: (asked.headers.iter())
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect(),
        claims: None,
        now: 0,
    }
}

fn row(listener: &str, number: usize, asked: &Asked) -> Row {
    let headers: Vec<String> = asked.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let send = format!(
        "{} {} HTTP/1.1\nHost: s{}\nx-row: r{number}\ncontent-length: 0\n{}\n",
        asked.method,
        asked.target,
        asked.service,
        headers.concat()
    );
    let row = json!({"name": format!("r{number}"), "listener": listener, "send": send, "status": null});
    serde_json::from_value(row).expect("it is a row")
}

fn expected(journey: &Journey) -> Vec<Expected> {
    let mut all = Vec::new();
    of_leg(&journey.first, &mut all);
    all
}

fn of_leg(leg: &Leg, all: &mut Vec<Expected>) {
    let mut left = 1.0;
    if let Some((share, status)) = leg.fault.as_ref().and_then(|fault| fault.abort) {
        all.push(Expected::Answer(status, None));
        left -= share;
    }
    if left <= 0.0 {
        return;
    }
    match &leg.outcome {
        Outcome::Answered(answer) => all.push(Expected::Answer(answer.status, answer.location.clone())),
        Outcome::Closed { why, .. } => panic!("nothing is closed here: {why}"),
        Outcome::Delivered { .. } | Outcome::Left { .. } => all.push(Expected::Host(BTreeSet::new(), None)),
        Outcome::Sent { branches } => {
            for branch in branches {
                if let Some(failure) = &branch.failure {
                    all.push(Expected::Answer(failure.status, None));
                } else if branch.head.is_some() {
                    let hosts = branch.endpoints.iter().filter(|host| host.share > 0.0);
                    let ips = hosts.filter_map(|host| Some(host.address.rsplit_once(':')?.0.to_owned()));
                    all.push(Expected::Host(ips.collect(), branch.head.clone()));
                } else {
                    branch.next.iter().for_each(|next| of_leg(&next.leg, all));
                }
            }
        }
    }
}

/// Why it is not that; none if it is.
fn differs(expected: &Expected, observed: &Observed) -> Option<String> {
    match (expected, observed.seen()) {
        (Expected::Answer(status, _), None) if observed.status() != Some(*status) => {
            Some(format!("the status is {:?}", observed.status()))
        }
        (Expected::Answer(_, location), None) if location.is_some() && observed.header("location") != *location => {
            Some(format!("the client is sent to {:?}", observed.header("location")))
        }
        (Expected::Answer(..), None) => None,
        (Expected::Answer(..), Some(seen)) => Some(format!("the host {} answers", seen["host"])),
        (Expected::Host(..), None) => Some(format!("no host answers, the status is {:?}", observed.status())),
        (Expected::Host(hosts, head), Some(seen)) => {
            let host = seen["host"].as_str().unwrap_or_default();
            if !hosts.is_empty() && !hosts.contains(host) {
                return Some(format!("the host {host} answers"));
            }
            let head = head.as_ref()?;
            let of = |name: &str| -> Vec<String> {
                let all = seen["headers"].as_array().into_iter().flatten().filter(|pair| pair[0] == name);
                all.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
            };
            if seen["method"] != head.method || seen["target"] != head.path || of("host") != [head.host.clone()] {
                return Some(format!("it is sent {} {} for {:?}", seen["method"], seen["target"], of("host")));
            }
            HEADERS.iter().find_map(|name| {
                let told = head.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
                let mut told: Vec<String> = told.collect();
                told.sort();
                let mut sent = of(name);
                sent.sort();
                (sent != told).then(|| format!("the header {name} is {sent:?}, and not {told:?}"))
            })
        }
    }
}

/// The program of a proxy that is held to what is said.
enum Program {
    Ours,
    Envoy(PathBuf),
}

fn hold(program: &Program) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let upstream = Upstream::start().await;
        let port = upstream.address.port();
        let mut dice = Dice(SEED);
        let routes = world(&meshes::of_routes(&mut dice, SERVICES, port));
        let policies = world(&meshes::of_policies(&mut dice, SERVICES, port));
        let mut listeners = vec![bootstrap::opened(&routes, "client", "0.0.0.0_80", None, "out")];
        for number in 0..SERVICES {
            let (pod, name) = (format!("p{number}"), format!("in{number}"));
            listeners.push(bootstrap::opened(&policies, &pod, "virtualInbound", Some(port), &name));
        }
        let mut clusters = bootstrap::clusters(&routes, "client", ("127.0.0.1", port));
        let own = bootstrap::clusters(&policies, "p0", ("127.0.0.5", port));
        clusters.retain(|cluster| !cluster.name.starts_with("inbound|"));
        clusters.extend(own.into_iter().filter(|cluster| cluster.name.starts_with("inbound|")));
        let text = bootstrap::text(listeners, clusters);
        let proxy = match program {
            Program::Ours => Proxy::of_text("lateen", &lateen_tests::program("lateen-proxy"), &text, &upstream).await,
            Program::Envoy(envoy) => Proxy::of_text("envoy", envoy, &text, &upstream).await,
        };
        let mut complaints = Vec::new();
        let mut answers: BTreeMap<Option<u16>, usize> = BTreeMap::new();
        for number in 0..REQUESTS {
            let asked = meshes::request(&mut dice, SERVICES);
            let of_policies = number % 2 == 1;
            let (world, from) = if of_policies { (&policies, "naked") } else { (&routes, "client") };
            let listener = if of_policies { format!("in{}", asked.service) } else { "out".to_owned() };
            let journey = explain(world, &question(from, &asked)).expect("the question makes sense");
            let all = expected(&journey);
            let observed = proxy.ask(&row(&listener, number, &asked), &upstream).await;
            *answers.entry(observed.status()).or_default() += 1;
            let wrong: Vec<String> = all.iter().filter_map(|one| differs(one, &observed)).collect();
            if wrong.len() == all.len() {
                complaints.push(format!("{number}: {asked:?}\n  said: {all:?}\n  but {}", wrong.join("; ")));
            }
        }
        // All kinds of ends were met, and not by chance only.
        let least = [(200, 200, 300), (301, 308, 20), (403, 403, 150), (404, 404, 20), (418, 418, 5), (503, 503, 20)];
        for (from, to, least) in least {
            let met: usize = answers.range(Some(from)..=Some(to)).map(|(_, count)| count).sum();
            assert!(met >= least, "{met} answers from {from} to {to}: {answers:?}");
        }
        let few: Vec<&String> = complaints.iter().take(10).collect();
        assert!(complaints.is_empty(), "{} of {REQUESTS}:\n{few:#?}", complaints.len());
    });
}

#[test]
fn what_is_explained_is_what_our_proxy_does() {
    hold(&Program::Ours);
}

#[test]
fn what_is_explained_is_what_envoy_does() {
    let Some(envoy) = lateen_tests::envoy() else { return };
    hold(&Program::Envoy(envoy));
}

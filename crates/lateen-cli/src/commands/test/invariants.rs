//! What holds for all callers and services: each workload asks for each port of each service, `GET /` where HTTP is spoken.

use std::collections::BTreeSet;

use lateen_explain::journey::{Journey, Outcome, Role};
use lateen_explain::{From, Question, Url, World, explain};
use lateen_mesh::{Protocol, ProxyKind, Registry, Resolution};

use super::check::{is_denied, plaintext, told};
use super::file::Rule;

/// Breaches of a rule, a sentence each, and how many requests were looked at.
pub(super) fn breaches(world: &World, rule: &Rule) -> (Vec<String>, usize) {
    let mut breaches = Vec::new();
    let mut count = 0;
    for caller in callers(world) {
        for url in urls(world, rule) {
            let Some(journey) = asked(world, &caller, &url) else { continue };
            count += 1;
            let breach = match rule {
                Rule::NoPlaintext { except } => {
                    if except.iter().any(|name| is(name, &caller)) { None } else { plaintext(&journey) }
                        .map(|who| format!("{who} is reached in plaintext"))
                }
                Rule::OnlyCallers { are, .. } => only(&journey, are.iter().any(|name| is(name, &caller))),
                Rule::ExternalThrough { gateway } => leaves(&journey, gateway),
            };
            breaches.extend(breach.map(|why| format!("{caller} to {url}: {why}")));
        }
    }
    (breaches, count)
}

fn only(journey: &Journey, may: bool) -> Option<String> {
    let denied = journey.results.iter().any(is_denied);
    let served = journey.results.iter().any(|ending| ending.served_by.is_some());
    match may {
        true if denied => Some(format!("it may, and is denied: {}", told(&journey.results))),
        false if served => Some(format!("it may not, and gets {}", told(&journey.results))),
        _ => None,
    }
}

fn leaves(journey: &Journey, gateway: &str) -> Option<String> {
    let legs = journey.first.all();
    let out = legs.iter().any(|leg| matches!(leg.outcome, Outcome::Left { .. }));
    let through = |name: &str| name == gateway || name.strip_prefix(gateway).is_some_and(|rest| rest.starts_with('-'));
    let passes = legs.iter().any(|leg| leg.role == Role::Gateway && through(&leg.at.name));
    (out && !passes).then(|| "it leaves the mesh by another way".to_owned())
}

/// `NAME` or `NAME.NAMESPACE`.
fn is(name: &str, caller: &str) -> bool {
    name == caller || !name.contains('.') && caller.split('.').next() == Some(name)
}

/// What owns the workloads that call, each once.
fn callers(world: &World) -> BTreeSet<String> {
    let all = world.mesh.workloads().filter(|workload| workload.proxy != ProxyKind::Gateway);
    all.map(|workload| format!("{}.{}", workload.owner, workload.namespace)).collect()
}

fn urls(world: &World, rule: &Rule) -> Vec<String> {
    let mut urls = Vec::new();
    for service in world.mesh.services().iter().filter(|service| service.resolution != Resolution::Alias) {
        let external = service.registry == Registry::ServiceEntry && service.external;
        let concerned = match rule {
            Rule::NoPlaintext { .. } => !external,
            Rule::OnlyCallers { of, .. } => {
                is(of, &format!("{}.{}", service.name, service.namespace)) || **of == *service.host
            }
            Rule::ExternalThrough { .. } => external,
        };
        if !concerned || service.host.contains('*') {
            continue;
        }
        for port in &service.ports {
            let scheme = match port.protocol {
                Protocol::Udp => continue,
                protocol if protocol.is_http() || protocol.is_sniffed() => "http",
                Protocol::Https | Protocol::Tls => "tls",
                _ => "tcp",
            };
            let path = match rule {
                Rule::OnlyCallers { path: Some(path), .. } => path.as_str(),
                _ => "/",
            };
            urls.push(format!("{scheme}://{}:{}{path}", service.host, port.number));
        }
    }
    urls
}

/// None, where there is nobody to ask.
fn asked(world: &World, caller: &str, url: &str) -> Option<Journey> {
    let (name, namespace) = caller.split_once('.')?;
    let from = From::Workload { name: name.to_owned(), namespace: namespace.to_owned() };
    let question = Question {
        from,
        url: Url::parse(url).ok()?,
        via: None,
        method: http::Method::GET,
        headers: Vec::new(),
        claims: None,
        now: 0,
    };
    explain(world, &question).ok()
}

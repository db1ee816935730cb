//! Where a proxy sends what it has decided about: clusters, their hosts, how they are chosen among and spoken to.

use std::net::SocketAddr;
use std::sync::Arc;

use lateen_engine::balance::{Balancer, Fresh, Pick};
use lateen_engine::config::Cluster;
use lateen_engine::config::cluster::{Breakers, Discovery, LbPolicy, LocalityPolicy, UpstreamProtocol};
use lateen_engine::config::endpoint::{Endpoint as Host, EndpointSet, Health, HostAddress};
use lateen_engine::config::tls::{Certificates, SanKind, UpstreamTls};
use lateen_engine::message::{RequestHead, Scheme, Version};
use lateen_translate::names::OutboundCluster;

use super::Walk;
use super::arrival::deliver;
use super::connection::{Proxy, closed};
use super::telling::{Telling, tell};
use super::wire::{Hello, Payload, Wire};
use crate::held::Refused;
use crate::journey::{Answer, Branch, Endpoint, Head, Leg, Next, Outcome, Party, Role, Stage, Step};

/// Draws by which the share of each host is found: enough for whole percents, and no more than a moment.
const DRAWS: u32 = 4_000;
/// The secret by which a proxy has its own workload's certificate.
const OWN_CERTIFICATE: &str = "default";
/// Clusters with more hosts are told by their number and the first of them.
const MOST_HOSTS: usize = 1_000;

/// A cluster, and the share of requests for it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) cluster: String,
    /// From 0 to 1.
    pub(super) share: f64,
    pub(super) hash: Option<u64>,
    /// What is answered if there is no such cluster; 0 for a connection.
    pub(super) not_found: u16,
}

/// What goes to one cluster.
#[derive(Debug)]
pub(super) struct Going {
    pub(super) target: Target,
    pub(super) payload: Payload,
    pub(super) head: Option<Box<RequestHead>>,
    /// What was told of this share of the requests already.
    pub(super) steps: Vec<Step>,
}

impl Walk<'_> {
    /// Sends it to all of them.
    pub(super) fn send(&self, telling: &mut Telling, proxy: Proxy<'_>, wire: &Wire, going: Vec<Going>) -> Outcome {
        if telling.role == Role::Server {
            // A proxy in front of an application has one place to send to.
            return match going.into_iter().next() {
                Some(going) => self.hand_over(telling, proxy, wire, going),
                None => closed("it leads nowhere".to_owned()),
            };
        }
        Outcome::Sent { branches: going.into_iter().map(|going| self.branch(proxy, wire, going)).collect() }
    }

    /// To the application behind a sidecar.
    fn hand_over(&self, telling: &mut Telling, proxy: Proxy<'_>, wire: &Wire, going: Going) -> Outcome {
        let cluster = match proxy.held.cluster(&going.target.cluster) {
            Ok(Some((cluster, set))) => Some((cluster, set)),
            Ok(None) => None,
            Err(Refused(why)) => return closed(format!("its proxy refuses what it is sent: {why}")),
        };
        let Some((cluster, set)) = cluster else {
            return closed(format!("there is no cluster {}", going.target.cluster));
        };
        let to = match set.endpoints().next().map(|host| &host.address) {
            Some(address) => address.to_string(),
            None => wire.local.to_string(),
        };
        let limits = &cluster.breakers[0];
        telling.step(Stage::Application, format!("gets it at {to}"));
        if let Some(said) = breakers(limits) {
            telling.step(Stage::Breakers, said);
        }
        match deliver(&Wire { payload: going.payload, ..wire.clone() }, wire.local) {
            Outcome::Delivered { .. } => Outcome::Delivered { to },
            other => other,
        }
    }

    fn branch(&self, proxy: Proxy<'_>, wire: &Wire, going: Going) -> Branch {
        let Going { target, payload, head, steps } = going;
        let named = OutboundCluster::parse(&target.cluster).or_else(|| OutboundCluster::parse_sni(&target.cluster));
        let mut branch = Branch {
            share: target.share,
            host: named.as_ref().map_or("", |named| named.host).to_owned(),
            subset: named.as_ref().map_or("", |named| named.subset).to_owned(),
            port: named.as_ref().map_or_else(|| wire.local.port(), |named| named.port),
            cluster: target.cluster.clone(),
            head: head.as_deref().map(head_of),
            steps,
            endpoints: Vec::new(),
            next: Vec::new(),
            failure: None,
        };
        match proxy.held.cluster(&target.cluster) {
            Err(Refused(why)) => branch.failure = Some(no_cluster(&target, format!("its proxy refuses it: {why}"))),
            Ok(None) => {
                let why = match &named {
                    Some(named) if !named.subset.is_empty() => {
                        format!("{} has no subset `{}`: no DestinationRule in force names it", named.host, named.subset)
                    }
                    Some(named) => format!("{} port {} is nothing that this proxy knows", named.host, named.port),
                    None => format!("there is no cluster {}", target.cluster),
                };
                branch.failure = Some(no_cluster(&target, why));
            }
            Ok(Some((cluster, set))) => self.fill(&mut branch, proxy, wire, (&cluster, &set), (target, payload, head)),
        }
        branch
    }

    fn fill(
        &self,
        branch: &mut Branch,
        proxy: Proxy<'_>,
        wire: &Wire,
        (cluster, set): (&Arc<Cluster>, &EndpointSet),
        (target, payload, head): (Target, Payload, Option<Box<RequestHead>>),
    ) {
        let what = match (branch.host.is_empty(), branch.subset.is_empty()) {
            (true, _) => cluster.name.to_string(),
            (false, true) => format!("{} port {}", branch.host, branch.port),
            (false, false) => format!("{} port {}, subset {}", branch.host, branch.port, branch.subset),
        };
        tell(&mut branch.steps, Stage::Destination, what).at(self.world.places(&cluster.origin));
        let from = Party::of(proxy.workload, &self.world.mesh.config().trust_domain);
        let speak = Speaking { cluster, identity: &from.identity, head: head.as_deref(), payload: &payload };
        // The proxy connects anew, from the address of its own pod.
        let remote = proxy.workload.ip().map_or(wire.remote, |ip| SocketAddr::new(ip, super::CLIENT_PORT));
        match &cluster.discovery {
            Discovery::OriginalDst { port_override } => {
                let to = SocketAddr::new(wire.local.ip(), port_override.unwrap_or(wire.local.port()));
                tell(&mut branch.steps, Stage::Endpoints, format!("where the client wanted to go: {to}"));
                let socket = cluster.transport.default.tls.as_deref();
                let payload = speak.payload(socket, None);
                let arriving = [(1.0, Wire { local: to, remote, payload })].into_iter();
                branch.next = self.arrive_at_all(arriving, proxy.depth);
                return;
            }
            Discovery::Dynamic(_) => {
                let to = head.as_deref().map(|head| head.host().to_owned());
                let to = to.or_else(|| wire.hello().and_then(|hello| hello.sni.clone())).unwrap_or_default();
                tell(&mut branch.steps, Stage::Endpoints, format!("whatever {to} resolves to"));
                branch.next.push(beyond(to, 1.0));
                return;
            }
            Discovery::Static | Discovery::Eds(_) | Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {}
        }
        let shares = shares(cluster, set, target.hash);
        branch.endpoints = endpoints(set, &shares);
        if shares.iter().all(|(_, share)| *share <= 0.0) {
            let said = if branch.endpoints.is_empty() { "there are none" } else { "none of them is healthy" };
            tell(&mut branch.steps, Stage::Endpoints, said);
            branch.failure = Some(Answer {
                status: if target.not_found == 0 { 0 } else { 503 },
                why: "no healthy upstream: there is nobody to send it to".to_owned(),
                flag: "UH",
                details: "no_healthy_upstream".to_owned(),
                location: None,
                policy: None,
                places: Vec::new(),
            });
            return;
        }
        tell_hosts(branch, set);
        tell(&mut branch.steps, Stage::Balancer, balancer(cluster, target.hash.is_some()));
        if let Some(said) = breakers(&cluster.breakers[0]) {
            tell(&mut branch.steps, Stage::Breakers, said);
        }
        self.tell_security(branch, cluster, &shares, &from.identity);
        let mut arriving = Vec::new();
        for (host, share) in shares.into_iter().filter(|(_, share)| *share > 0.0) {
            let tls = cluster.transport.of(&host).tls.as_deref();
            match &host.address {
                HostAddress::Socket(to) => match self.refuses(tls, *to) {
                    None => {
                        arriving.push((share, Wire { local: *to, remote, payload: speak.payload(tls, Some(&host)) }))
                    }
                    Some(why) => branch.next.push(self.handshake_fails(*to, share, why)),
                },
                other => branch.next.push(beyond(other.to_string(), share)),
            }
        }
        branch.next.extend(self.arrive_at_all(arriving.into_iter(), proxy.depth));
    }

    /// Why a client that checks names lets no such server be.
    fn refuses(&self, tls: Option<&UpstreamTls>, to: SocketAddr) -> Option<String> {
        let validation = tls?.common.validation.as_ref()?;
        let uris: Vec<_> = validation.sans.iter().filter(|san| san.kind == SanKind::Uri).collect();
        let workload = self.world.at_address(to.ip())?;
        let server = Party::of(workload, &self.world.mesh.config().trust_domain).identity;
        if uris.is_empty() || uris.iter().any(|san| san.matcher.matches(&server)) {
            return None;
        }
        let expected: Vec<String> = uris.iter().map(|san| san.matcher.to_string()).collect();
        Some(format!(
            "the handshake fails: the server is {server}, and its name must be one that {}",
            expected.join(" or ")
        ))
    }

    fn handshake_fails(&self, to: SocketAddr, share: f64, why: String) -> Next {
        let name =
            self.world.at_address(to.ip()).map_or_else(|| to.to_string(), |it| format!("{}.{}", it.name, it.namespace));
        let at = self.world.at_address(to.ip()).map(|it| Party::of(it, &self.world.mesh.config().trust_domain));
        let leg = match at {
            Some(at) => Telling::new(Role::Server, at).end(closed(why)),
            None => beyond(to.to_string(), share).leg,
        };
        Next { share, workloads: vec![name], leg }
    }

    fn tell_security(&self, branch: &mut Branch, cluster: &Cluster, shares: &[(Arc<Host>, f64)], identity: &str) {
        let mut said: Vec<String> = Vec::new();
        for (host, _) in shares.iter().filter(|(_, share)| *share > 0.0) {
            let words = match cluster.transport.of(host).tls.as_deref() {
                None => "plaintext".to_owned(),
                Some(tls) if has_own_certificate(tls) => format!("mutual TLS as {identity}{}", server_name(tls, host)),
                Some(tls) => format!("TLS{}", server_name(tls, host)),
            };
            if !said.contains(&words) {
                said.push(words);
            }
        }
        tell(&mut branch.steps, Stage::Tls, said.join("; for other hosts "));
    }
}

fn server_name(tls: &UpstreamTls, host: &Host) -> String {
    match (tls.auto_host_sni && !host.hostname.is_empty(), tls.sni.is_empty()) {
        (true, _) => format!(", to {}", host.hostname),
        (false, false) => format!(", to {}", tls.sni),
        (false, true) => String::new(),
    }
}

fn has_own_certificate(tls: &UpstreamTls) -> bool {
    match &tls.common.certificates {
        Some(Certificates::Sds(names)) => names.iter().any(|name| name == OWN_CERTIFICATE),
        _ => false,
    }
}

/// How a host of a cluster is spoken to.
struct Speaking<'a> {
    cluster: &'a Cluster,
    identity: &'a str,
    head: Option<&'a RequestHead>,
    payload: &'a Payload,
}

impl Speaking<'_> {
    fn payload(&self, tls: Option<&UpstreamTls>, host: Option<&Host>) -> Payload {
        let inside = match self.head {
            None => self.payload.clone(),
            Some(head) => {
                let mut head = head.clone();
                head.scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
                head.version = match self.cluster.protocol {
                    UpstreamProtocol::Http1 | UpstreamProtocol::Alpn => Version::Http11,
                    UpstreamProtocol::Http2 => Version::Http2,
                    UpstreamProtocol::Downstream => head.version,
                };
                Payload::Http(Box::new(head))
            }
        };
        let Some(tls) = tls else { return inside };
        let of_host = host.filter(|host| tls.auto_host_sni && !host.hostname.is_empty());
        let sni = of_host.map_or_else(|| tls.sni.clone(), |host| host.hostname.to_string());
        let hello = Hello {
            sni: Some(sni).filter(|sni| !sni.is_empty()),
            alpn: tls.common.alpn.clone(),
            identity: has_own_certificate(tls).then(|| self.identity.to_owned()),
        };
        Payload::Tls(hello, Box::new(inside))
    }
}

/// What becomes of requests for each host, by drawing from the proxy's own balancer.
fn shares(cluster: &Cluster, set: &EndpointSet, hash: Option<u64>) -> Vec<(Arc<Host>, f64)> {
    let mut balancer = Balancer::new(cluster, set, None);
    balancer.refresh(&Fresh);
    let mut drawn = vec![0_u32; balancer.hosts().len()];
    for draw in 0..DRAWS {
        let pick = Pick { random: mixed(draw.into()), hash, ..Pick::default() };
        if let Some(host) = balancer.pick(&pick, &Fresh) {
            drawn[host] += 1;
        }
    }
    let all: u32 = drawn.iter().sum();
    let of = |count: u32| if all == 0 { 0.0 } else { f64::from(count) / f64::from(all) };
    balancer.hosts().iter().cloned().zip(drawn.into_iter().map(of)).collect()
}

/// A number that looks drawn, and is the same for the same question (Steele, Lea, Flood: SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn endpoints(set: &EndpointSet, shares: &[(Arc<Host>, f64)]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (priority, localities) in set.priorities.iter().enumerate() {
        for locality in localities {
            let zone = [&locality.region, &locality.zone, &locality.sub_zone].map(String::as_str);
            let zone = zone.join("/").trim_end_matches('/').to_owned();
            for host in &locality.endpoints {
                let share = shares.iter().find(|(known, _)| Arc::ptr_eq(known, host)).map_or(0.0, |(_, share)| *share);
                let mut parts = host.workload.split(';');
                let workload = match (parts.next(), parts.next()) {
                    (Some(name), Some(namespace)) if !name.is_empty() => format!("{name}.{namespace}"),
                    _ => String::new(),
                };
                endpoints.push(Endpoint {
                    address: host.address.to_string(),
                    workload,
                    priority,
                    zone: zone.clone(),
                    weight: host.weight,
                    healthy: host.health == Health::Healthy,
                    share,
                });
            }
        }
    }
    endpoints.truncate(MOST_HOSTS);
    endpoints
}

fn tell_hosts(branch: &mut Branch, set: &EndpointSet) {
    let all = set.endpoints().count();
    let used = branch.endpoints.iter().filter(|endpoint| endpoint.share > 0.0).count();
    let said = match (used, all) {
        (1, 1) => "one".to_owned(),
        (used, all) if used == all => format!("{all}"),
        (used, all) => format!("{used} of {all} get requests now"),
    };
    let weighted = branch.endpoints.iter().any(|endpoint| endpoint.weight != branch.endpoints[0].weight);
    let notes: Vec<String> = branch
        .endpoints
        .iter()
        .map(|it| {
            let whose = if it.workload.is_empty() { String::new() } else { format!(" {}", it.workload) };
            let weight = if weighted { format!(", weight {}", it.weight) } else { String::new() };
            let zone = if it.zone.is_empty() { String::new() } else { format!(", in {}", it.zone) };
            let priority = if it.priority > 0 { format!(", priority {}", it.priority) } else { String::new() };
            let health = if it.healthy { "" } else { ", not healthy" };
            let share = if it.share > 0.0 { String::new() } else { ", gets nothing now".to_owned() };
            format!("{}{whose}{weight}{zone}{priority}{health}{share}", it.address)
        })
        .collect();
    let mut last = tell(&mut branch.steps, Stage::Endpoints, said);
    for note in notes {
        last = last.note(note);
    }
}

fn balancer(cluster: &Cluster, hashed: bool) -> String {
    let mut said = match cluster.lb {
        LbPolicy::RoundRobin => "round robin".to_owned(),
        LbPolicy::Random => "at random".to_owned(),
        LbPolicy::LeastRequest { choices, .. } => format!("fewest requests under way, of {choices} that are drawn"),
        LbPolicy::PeakEwma => "soonest expected answer, of two that are drawn".to_owned(),
        LbPolicy::RingHash { .. } => "consistent hashing (ring)".to_owned(),
        LbPolicy::Maglev { .. } => "consistent hashing (Maglev)".to_owned(),
        LbPolicy::ClusterProvided => "what the request names".to_owned(),
    };
    if cluster.lb.hashes() && !hashed {
        said.push_str(": the request has nothing to be hashed, so at random");
    }
    if let LocalityPolicy::Weighted = cluster.locality {
        said.push_str(", by the weights of localities");
    }
    if cluster.asks_for_zones {
        said.push_str(", in the proxy's own zone as far as that is fair");
    }
    if let Some(slow) = &cluster.slow_start {
        said.push_str(&format!(", new hosts little by little over {:?}", slow.window));
    }
    if let Some(outlier) = &cluster.outlier {
        said.push_str(&format!("; who fails is left out for {:?} and longer", outlier.base_ejection_time));
    }
    said
}

/// Limits that somebody has set: Istio's own are as high as can be.
fn breakers(limits: &Breakers) -> Option<String> {
    let all = [
        ("connections", limits.max_connections),
        ("waiting requests", limits.max_pending),
        ("requests", limits.max_requests),
        ("retries", limits.max_retries),
    ];
    let defaults = Breakers::default();
    let default = [defaults.max_connections, defaults.max_pending, defaults.max_requests, defaults.max_retries];
    let set = all.iter().zip(default).filter(|((_, limit), default)| *limit != u32::MAX && limit != default);
    let words: Vec<String> = set.map(|((what, limit), _)| format!("{limit} {what}")).collect();
    (!words.is_empty()).then(|| format!("at most {} at a time", words.join(", ")))
}

fn no_cluster(target: &Target, why: String) -> Answer {
    Answer {
        status: target.not_found,
        why,
        flag: "NC",
        details: "cluster_not_found".to_owned(),
        location: None,
        policy: None,
        places: Vec::new(),
    }
}

fn beyond(to: String, share: f64) -> Next {
    let at = Party { name: to.clone(), namespace: String::new(), identity: String::new(), address: to.clone() };
    let leg: Leg = Telling::new(Role::Server, at).end(Outcome::Left { to: to.clone() });
    Next { share, workloads: vec![to], leg }
}

fn head_of(head: &RequestHead) -> Head {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Head {
        method: head.method.to_string(),
        host: head.host().to_owned(),
        path: head.target().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    }
}

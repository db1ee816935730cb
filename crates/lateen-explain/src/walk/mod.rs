//! The way of a request: from who asks, through each proxy, to who answers.

mod arrival;
mod connection;
mod http;
mod policies;
mod telling;
mod upstream;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lateen_engine::config::listener::Direction;
use lateen_mesh::{ProxyKind, Service, Workload};

use crate::dns::{self, Resolved};
use crate::journey::{Branch, Journey, Leg, Outcome, Party, Role, Stage};
use crate::question::{From, Misunderstood, Question, SOMEBODY, Speech};
use crate::world::World;
use crate::{capture, ending};
use telling::Telling;
use wire::{Hello, Payload, Wire};

/// A client's own port: any that no rule is about.
const CLIENT_PORT: u16 = 40_000;
/// A request that has been through so many proxies goes round in a circle.
const MOST_LEGS: usize = 8;

/// A question about a world.
#[derive(Clone, Copy)]
struct Walk<'w> {
    world: &'w World,
    question: &'w Question,
}

/// What becomes of the request that is asked about.
///
/// # Errors
/// The question is about something that there is not, or about two things.
pub fn explain(world: &World, question: &Question) -> Result<Journey, Misunderstood> {
    let walk = Walk { world, question };
    let caller = match &question.from {
        From::Workload { name, namespace } => Some(world.workload(name, namespace)?),
        From::Outside(_) => None,
    };
    let from = match (caller, &question.from) {
        (Some(workload), _) => Party::of(workload, &world.mesh.config().trust_domain),
        (None, From::Outside(ip)) => outsider(*ip),
        (None, From::Workload { .. }) => outsider(SOMEBODY),
    };
    let remote = SocketAddr::new(from.address.parse().unwrap_or(SOMEBODY), CLIENT_PORT);
    let (address, first) = match &question.via {
        Some(gateway) => walk.through_gateway(gateway, remote)?,
        None => walk.leave_pod(caller, &from, remote)?,
    };
    Ok(Journey {
        request: walk.request(),
        address: address.to_string(),
        results: ending::of(&first, question.url.speech.is_http()),
        from,
        first,
    })
}

fn outsider(address: IpAddr) -> Party {
    Party {
        name: "somebody outside".to_owned(),
        namespace: String::new(),
        identity: String::new(),
        address: address.to_string(),
    }
}

impl<'w> Walk<'w> {
    fn request(&self) -> String {
        match self.question.head() {
            Some(head) => format!("{} {}", head.method, self.question.url),
            None => self.question.url.to_string(),
        }
    }

    /// What the client sends.
    fn payload(&self) -> Payload {
        let inside = self.question.head().map_or(Payload::Bytes, |head| Payload::Http(Box::new(head)));
        if !self.question.url.speech.is_tls() {
            return inside;
        }
        let host = &self.question.url.host;
        let alpn = if self.question.url.speech == Speech::Https {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            Vec::new()
        };
        // RFC 6066, section 3: addresses are no server names.
        let sni = Some(host.clone()).filter(|host| host.parse::<IpAddr>().is_err());
        Payload::Tls(Hello { sni, alpn, identity: None }, Box::new(inside))
    }

    fn leave_pod(
        &self,
        caller: Option<&Arc<Workload>>,
        from: &Party,
        remote: SocketAddr,
    ) -> Result<(SocketAddr, Leg), Misunderstood> {
        let Some(caller) = caller else {
            return Err(Misunderstood(
                "somebody outside comes through a gateway: say which by --via, or who asks by --from".to_owned(),
            ));
        };
        let resolved = dns::resolve(self.world, &self.question.url, &caller.namespace)?;
        let local = SocketAddr::new(resolved.address, self.question.url.port());
        let wire = Wire { local, remote, payload: self.payload() };
        let mut telling = Telling::new(Role::Caller, from.clone());
        let captured = match (caller.proxy, self.world.pod(caller)) {
            (ProxyKind::None, _) => Err("it has no proxy: the request goes out as it is".to_owned()),
            (ProxyKind::Gateway, _) => Err("it is a gateway: what it sends itself goes out as it is".to_owned()),
            (ProxyKind::Sidecar, Some(pod)) => capture::outbound(pod, local.ip(), local.port()),
            (ProxyKind::Sidecar, None) => Ok(()),
        };
        telling.step(Stage::Dns, resolved.said.clone()).at(resolved.place.clone());
        let leg = match captured {
            Ok(()) => {
                telling.step(Stage::Capture, format!("{local} goes to the sidecar"));
                self.pass(telling, caller, Direction::Outbound, wire, 0)
            }
            Err(why) => {
                telling.step(Stage::Capture, why);
                self.straight(telling, &resolved, &wire)
            }
        };
        Ok((local, leg))
    }

    /// Without a proxy: to the address, or to one of the pods that a service's address stands for.
    fn straight(&self, telling: Telling, resolved: &Resolved, wire: &Wire) -> Leg {
        let of_service = |service: &Arc<Service>| {
            let endpoints = self.world.mesh.endpoints(service);
            let of_port = endpoints.port(wire.local.port()).iter();
            of_port.filter_map(|it| Some(SocketAddr::new(it.address.ip()?, it.port))).collect::<Vec<_>>()
        };
        let headless = resolved.service.as_ref().is_some_and(|service| service.is_headless());
        let vip = resolved.service.as_ref().filter(|it| !headless && it.vips().any(|vip| vip == wire.local.ip()));
        let targets = match vip {
            Some(service) => of_service(service),
            None => vec![wire.local],
        };
        let mut branch = Branch {
            share: 1.0,
            cluster: String::new(),
            host: resolved.service.as_ref().map(|service| service.host.to_string()).unwrap_or_default(),
            subset: String::new(),
            port: wire.local.port(),
            head: None,
            steps: Vec::new(),
            endpoints: Vec::new(),
            next: Vec::new(),
            failure: None,
        };
        if targets.is_empty() {
            let why = format!("no pod is ready behind {}", branch.host);
            return telling.end(Outcome::Closed { why, places: resolved.place.iter().cloned().collect() });
        }
        let share = 1.0 / f64::from(u32::try_from(targets.len()).unwrap_or(u32::MAX));
        let arriving = targets.into_iter().map(|to| (share, Wire { local: to, ..wire.clone() }));
        branch.next = self.arrive_at_all(arriving, 0);
        telling.end(Outcome::Sent { branches: vec![branch] })
    }

    fn through_gateway(&self, name: &str, remote: SocketAddr) -> Result<(SocketAddr, Leg), Misunderstood> {
        let gateway = self.gateway(name)?;
        let Some(ip) = gateway.ip() else {
            return Err(Misunderstood(format!("the gateway {} has no address", gateway.name)));
        };
        let port = self.question.url.port();
        let served = self.world.mesh.services_of(gateway).into_iter().find_map(|service| {
            let endpoints = self.world.mesh.endpoints(&service);
            let own = endpoints.port(port).iter().find(|it| it.address.ip() == Some(ip))?;
            Some((service.host.to_string(), own.port))
        });
        let local = SocketAddr::new(ip, served.as_ref().map_or(port, |(_, port)| *port));
        let party = Party::of(gateway, &self.world.mesh.config().trust_domain);
        let mut telling = Telling::new(Role::Gateway, party);
        let said = match &served {
            Some((service, target)) => format!("port {port} of {service} is port {target} of the gateway"),
            None => format!("no service in front of the gateway has port {port}: it is the gateway's own"),
        };
        telling.step(Stage::Capture, said);
        let wire = Wire { local, remote, payload: self.payload() };
        Ok((local, self.pass(telling, gateway, Direction::Outbound, wire, 0)))
    }

    /// A gateway proxy by its workload's name, or by that of a Gateway that selects it; the only one that there is, if that is
    /// called `gateway`.
    fn gateway(&self, name: &str) -> Result<&'w Arc<Workload>, Misunderstood> {
        let all: Vec<&Arc<Workload>> =
            self.world.mesh.workloads().filter(|workload| workload.proxy == ProxyKind::Gateway).collect();
        let (bare, namespace) = match name.split_once('.') {
            Some((bare, namespace)) => (bare, Some(namespace)),
            None => (name, None),
        };
        let within = |workload: &Workload| namespace.is_none_or(|namespace| namespace == &*workload.namespace);
        let called = |workload: &Workload| {
            [&*workload.name, &*workload.owner, workload.canonical_name()].contains(&bare) && within(workload)
        };
        let serves = |workload: &Workload| {
            let merged = self.world.mesh.gateway_of(workload);
            let mut servers = merged.listeners.iter().flat_map(|listener| &listener.servers);
            servers
                .any(|server| server.gateway == name || server.gateway.rsplit_once('/').is_some_and(|it| it.1 == name))
        };
        if let Some(found) =
            all.iter().copied().find(|it| called(it)).or_else(|| all.iter().copied().find(|it| serves(it)))
        {
            return Ok(found);
        }
        let mut owners: Vec<String> = all.iter().map(|it| format!("{}.{}", it.owner, it.namespace)).collect();
        owners.dedup();
        match (owners.as_slice(), name) {
            ([_], "gateway") => Ok(all[0]),
            ([], _) => Err(Misunderstood(
                "there is no gateway: a pod is one with the annotation `inject.istio.io/templates: gateway`".to_owned(),
            )),
            (owners, _) => {
                Err(Misunderstood(format!("there is no gateway `{name}`; there are: {}", owners.join(", "))))
            }
        }
    }
}

//! A connection at one proxy: which listener and filter chain are for it, where its TLS ends, and what network filters say.

use std::sync::Arc;

use lateen_engine::config::Snapshot;
use lateen_engine::config::listener::{Direction, FilterChain, Listener, Terminal};
use lateen_engine::config::tcp::{TcpProxy, TcpTarget};
use lateen_engine::config::tls::{DownstreamTls, SanKind};
use lateen_engine::filters::network::{self, NetworkFilter};
use lateen_engine::filters::rbac::{PeerNames, Subject};
use lateen_mesh::{MtlsMode, Workload};
use lateen_translate::names;

use super::telling::Telling;
use super::upstream::{Going, Target};
use super::wire::{Payload, Wire};
use super::{MOST_LEGS, Walk};
use crate::held::{self, Held, Refused};
use crate::journey::{Leg, Outcome, Role, Stage};
use crate::world::place;

/// A proxy, and who it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Proxy<'a> {
    pub(super) held: &'a Held,
    pub(super) workload: &'a Arc<Workload>,
    pub(super) depth: usize,
}

/// A connection whose TLS, if it had any, has ended.
pub(super) struct Open<'a> {
    pub(super) wire: &'a Wire,
    pub(super) payload: Payload,
    /// What the client has proven; none without a certificate.
    pub(super) peer: Option<PeerNames>,
    pub(super) sni: Option<&'a str>,
    /// TLS ended here.
    pub(super) encrypted: bool,
}

impl Walk<'_> {
    /// What a proxy makes of a connection.
    pub(super) fn pass(
        &self,
        mut telling: Telling,
        workload: &Arc<Workload>,
        direction: Direction,
        wire: Wire,
        depth: usize,
    ) -> Leg {
        if depth >= MOST_LEGS {
            return telling.end(closed(format!("it has been through {depth} proxies: it goes round in a circle")));
        }
        let Some(held) = self.world.held(workload) else {
            return telling.end(closed(format!("{} has no proxy", workload.name)));
        };
        let proxy = Proxy { held: &held, workload, depth };
        match held.snapshot(direction, wire.local.port()) {
            Ok(snapshot) => {
                let outcome = self.decide(&mut telling, proxy, &snapshot, &wire);
                telling.end(outcome)
            }
            Err(Refused(why)) => telling.end(closed(format!("its proxy refuses what it is sent: {why}"))),
        }
    }

    fn decide(&self, telling: &mut Telling, proxy: Proxy<'_>, snapshot: &Snapshot, wire: &Wire) -> Outcome {
        let listener = match telling.role {
            Role::Caller => held::redirected(snapshot, names::VIRTUAL_OUTBOUND, wire.local),
            Role::Server => {
                let own = snapshot.listener_for_original_dst(wire.local);
                own.or_else(|| held::redirected(snapshot, names::VIRTUAL_INBOUND, wire.local))
            }
            Role::Gateway => snapshot.listener_for_original_dst(wire.local),
        };
        let Some(listener) = listener else {
            return closed(format!("nothing listens on port {} of {}", wire.local.port(), telling.at));
        };
        // That a sidecar's listener is there because of its pod says nothing.
        let places = if telling.role == Role::Server { Vec::new() } else { self.world.places(&listener.origin) };
        telling.step(Stage::Listener, &*listener.name).at(places);
        let alpn = wire.alpn(listener);
        let Some(chain) = listener.chains.find(&wire.facts(listener, &alpn)) else {
            return self.no_chain(proxy, listener, wire, telling.role);
        };
        let mut open = match self.open(telling, proxy, chain, wire) {
            Ok(open) => open,
            Err(outcome) => return *outcome,
        };
        if let Some(outcome) = self.network_filters(telling, proxy, chain, &open) {
            return outcome;
        }
        match (&chain.terminal, std::mem::replace(&mut open.payload, Payload::Bytes)) {
            (Terminal::Http(manager), Payload::Http(head)) => {
                self.pass_http(telling, proxy, snapshot, manager, &open, *head)
            }
            (Terminal::Http(_), Payload::Tls(..)) => closed("TLS comes where plaintext HTTP is read".to_owned()),
            (Terminal::Http(_), Payload::Bytes) => {
                closed("the port is read as HTTP, and what comes is none: it is answered with 400".to_owned())
            }
            (Terminal::Tcp(tcp), payload) => {
                open.payload = payload;
                self.pass_tcp(telling, proxy, tcp, &open)
            }
        }
    }

    /// Ends TLS where the chain does.
    fn open<'a>(
        &self,
        telling: &mut Telling,
        proxy: Proxy<'_>,
        chain: &FilterChain,
        wire: &'a Wire,
    ) -> Result<Open<'a>, Box<Outcome>> {
        let port = wire.local.port();
        let reads = match chain.terminal {
            Terminal::Http(_) => "HTTP",
            Terminal::Tcp(_) => "bytes",
        };
        let name = if chain.name.is_empty() { String::new() } else { format!("{}, ", chain.name) };
        telling.step(Stage::FilterChain, format!("{name}read as {reads}")).at(self.world.places(&chain.origin));
        let sni = wire.hello().and_then(|hello| hello.sni.as_deref());
        let mode = (telling.role == Role::Server).then(|| {
            let mode = match self.world.mesh.mtls(proxy.workload).mode(port) {
                MtlsMode::Strict => "STRICT",
                MtlsMode::Permissive => "PERMISSIVE",
                MtlsMode::Disable => "DISABLE",
            };
            (mode, self.world.mesh.mtls_origin(proxy.workload, port).as_ref().map(place))
        });
        let mode_words = mode.as_ref().map(|(mode, _)| format!(" (mTLS is {mode})")).unwrap_or_default();
        let mode_place = mode.and_then(|(_, place)| place);
        let (Some(tls), Payload::Tls(hello, inside)) = (&chain.tls, &wire.payload) else {
            if chain.tls.is_some() {
                return Err(Box::new(closed(format!("port {port} speaks TLS, and plaintext comes"))));
            }
            let how = match (wire.hello(), sni) {
                (Some(_), Some(sni)) => format!("TLS for {sni} passes as it is"),
                (Some(_), None) => "TLS passes as it is".to_owned(),
                (None, _) => "plaintext".to_owned(),
            };
            if telling.role != Role::Caller || wire.hello().is_some() {
                telling.step(Stage::Tls, format!("{how}{mode_words}")).at(mode_place);
            }
            return Ok(Open { wire, payload: wire.payload.clone(), peer: None, sni, encrypted: false });
        };
        let identity = asked(tls, hello.identity.as_ref())?;
        let who = match &identity {
            Some(identity) => format!("mutual TLS ends here: the client is {identity}"),
            None => format!("TLS ends here{}: the client shows no certificate", for_name(sni)),
        };
        telling.step(Stage::Tls, format!("{who}{mode_words}")).at(mode_place);
        let peer = identity.map(|identity| PeerNames { uri_sans: vec![identity], ..PeerNames::default() });
        Ok(Open { wire, payload: (**inside).clone(), peer, sni, encrypted: true })
    }

    /// Nothing takes the connection: why.
    fn no_chain(&self, proxy: Proxy<'_>, listener: &Listener, wire: &Wire, role: Role) -> Outcome {
        let port = wire.local.port();
        let sni = wire.hello().and_then(|hello| hello.sni.as_deref());
        let mode = self.world.mesh.mtls(proxy.workload).mode(port);
        match (role, wire.hello(), mode) {
            (Role::Server, None, MtlsMode::Strict) => Outcome::Closed {
                why: format!("mTLS is STRICT for port {port}, and plaintext comes"),
                places: self.world.mesh.mtls_origin(proxy.workload, port).iter().map(place).collect(),
            },
            (Role::Gateway, None, _) if listener.chains.iter().all(|chain| chain.tls.is_some()) => Outcome::Closed {
                why: format!("port {port} speaks TLS, and plaintext comes"),
                places: self.world.places(&listener.origin),
            },
            (_, Some(_), _) => Outcome::Closed {
                why: format!("no server on port {port} is for TLS{}", for_name(sni)),
                places: self.world.places(&listener.origin),
            },
            _ => Outcome::Closed {
                why: format!("no filter chain of {} takes such a connection", listener.name),
                places: self.world.places(&listener.origin),
            },
        }
    }

    fn network_filters(
        &self,
        telling: &mut Telling,
        proxy: Proxy<'_>,
        chain: &FilterChain,
        open: &Open<'_>,
    ) -> Option<Outcome> {
        for filter in &chain.network {
            match filter {
                NetworkFilter::Rbac(rbac) => {
                    let metadata = telling.metadata.clone();
                    let remote = open.wire.remote.ip();
                    let subject = Subject {
                        head: None,
                        destination: open.wire.local,
                        direct_remote: remote,
                        remote,
                        peer: open.peer.as_ref(),
                        sni: open.sni,
                        metadata: &metadata,
                    };
                    if let Some(denied) = self.ask(telling, proxy.workload, &rbac.rules, network::RBAC, &subject) {
                        let places = denied.places;
                        return Some(Outcome::Closed { why: denied.why, places });
                    }
                }
                NetworkFilter::ExtAuthz(authz) if authz.is_enabled(&telling.metadata) => {
                    let said = format!("{} is asked about the connection; here, it agrees", authz.service.cluster);
                    telling.step(Stage::Filter, said);
                }
                NetworkFilter::SniDynamicForwardProxy(_) => {
                    telling.step(Stage::Filter, "the server name is resolved: the connection goes to what it names");
                }
                NetworkFilter::ExtAuthz(_) => {}
            }
        }
        None
    }

    fn pass_tcp(&self, telling: &mut Telling, proxy: Proxy<'_>, tcp: &TcpProxy, open: &Open<'_>) -> Outcome {
        if let Some(idle) = tcp.idle_timeout {
            telling.step(Stage::Timeout, format!("closed after {idle:?} without a byte"));
        }
        let targets: Vec<(&Arc<str>, f64)> = match &tcp.target {
            TcpTarget::Single(name) => vec![(name, 1.0)],
            TcpTarget::Weighted(clusters, total) => {
                let of = |weight: u32| f64::from(weight) / f64::from(u32::try_from(*total).unwrap_or(u32::MAX).max(1));
                clusters.iter().map(|(name, weight)| (name, of(*weight))).collect()
            }
        };
        let hash = tcp.hash(open.wire.remote.ip());
        let going = targets.into_iter().filter(|(_, share)| *share > 0.0).map(|(cluster, share)| Going {
            target: Target { cluster: cluster.to_string(), share, hash, not_found: 0 },
            payload: open.payload.clone(),
            head: None,
            steps: Vec::new(),
        });
        self.send(telling, proxy, open.wire, going.collect())
    }
}

/// Who the client is, if it is asked for a certificate.
fn asked(tls: &DownstreamTls, identity: Option<&String>) -> Result<Option<String>, Box<Outcome>> {
    let Some(validation) = &tls.common.validation else { return Ok(None) };
    match identity {
        None if tls.require_client_certificate => {
            let why = "the handshake fails: a client certificate is required, and there is none";
            Err(Box::new(closed(why.to_owned())))
        }
        None => Ok(None),
        Some(identity) => {
            let fits = validation.sans.is_empty()
                || validation.sans.iter().any(|san| san.kind == SanKind::Uri && san.matcher.matches(identity));
            match fits {
                true => Ok(Some(identity.clone())),
                false => {
                    let why = format!("the handshake fails: {identity} is none of the clients that are let in");
                    Err(Box::new(closed(why)))
                }
            }
        }
    }
}

fn for_name(sni: Option<&str>) -> String {
    sni.map(|sni| format!(" for {sni}")).unwrap_or_default()
}

pub(super) fn closed(why: String) -> Outcome {
    Outcome::Closed { why, places: Vec::new() }
}

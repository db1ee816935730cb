//! A request at one connection manager: its path, its route and the nearest that is not it, the filters in their order, and
//! what the route does.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use lateen_engine::config::{HttpConnectionManager, Snapshot, Value};
use lateen_engine::filters::http::jwt_authn::{self, Fetched, JwtAuthn, Outcome as Checked};
use lateen_engine::filters::http::{Kind, Override, PerFilter, Step as Said, fault, rbac};
use lateen_engine::filters::rbac::{PeerNames, Subject};
use lateen_engine::flags::LocalReply;
use lateen_engine::headers::{self, Arrival, Origin, Peer};
use lateen_engine::matching::paths::Normalized;
use lateen_engine::message::{Headers, RequestHead};
use lateen_engine::metadata::Fields;
use lateen_engine::route::action::{ClusterTarget, Forward};
use lateen_engine::route::format::{Field, Operator};
use lateen_engine::route::raise::Raising;
use lateen_engine::route::{Action, Found, Miss, Route, RouteFacts, RouteTable};

use super::Walk;
use super::connection::{Open, Proxy, closed};
use super::telling::{Telling, tell};
use super::upstream::{Going, Target};
use super::wire::Payload;
use crate::journey::{Answer, Fault, Forwarding, Millis, Outcome, Place, Role, Stage, Step};

/// What a request draws where it draws: what depends on it is told in shares.
const RANDOM: u64 = 0;
/// In the place of what each request has of its own.
static REQUEST_ID: HeaderValue = HeaderValue::from_static("(each its own)");

/// A request among the filters.
struct Passing<'a> {
    proxy: Proxy<'a>,
    snapshot: &'a Snapshot,
    manager: &'a HttpConnectionManager,
    open: &'a Open<'a>,
    head: RequestHead,
    remote: std::net::IpAddr,
}

/// What filters came to.
enum Filtered {
    Passed(Option<Arc<Route>>),
    Answered(Answer),
}

impl Walk<'_> {
    pub(super) fn pass_http(
        &self,
        telling: &mut Telling,
        proxy: Proxy<'_>,
        snapshot: &Snapshot,
        manager: &HttpConnectionManager,
        open: &Open<'_>,
        mut head: RequestHead,
    ) -> Outcome {
        let own = PeerNames { uri_sans: vec![telling.at.identity.clone()], ..PeerNames::default() };
        let peer = open.peer.as_ref().map(|names| Peer { names, certificate_hash: "(its own)", own: &own });
        let arrival = Arrival { local: open.wire.local, remote: open.wire.remote, peer };
        if open.encrypted {
            head.scheme = lateen_engine::message::Scheme::Https;
        }
        let Origin { remote, .. } = headers::on_arrival(&mut head, manager, &arrival, || REQUEST_ID.clone());
        let mut passing = Passing { proxy, snapshot, manager, open, head, remote };
        if let Some(answer) = normalize(telling, &mut passing) {
            return Outcome::Answered(answer);
        }
        let route = match self.find_route(telling, &passing) {
            Ok(route) => route,
            Err(answer) => return Outcome::Answered(*answer),
        };
        let route = match self.filters(telling, &mut passing, route) {
            Filtered::Passed(route) => route,
            Filtered::Answered(answer) => return Outcome::Answered(answer),
        };
        let Some(route) = route else {
            return Outcome::Answered(Answer {
                status: 404,
                why: "no route is for it".to_owned(),
                flag: "NR",
                details: "route_not_found".to_owned(),
                location: None,
                policy: None,
                places: Vec::new(),
            });
        };
        self.take(telling, passing, &route)
    }

    /// The route, and the nearest that is not taken.
    fn find_route(&self, telling: &mut Telling, passing: &Passing<'_>) -> Result<Option<Arc<Route>>, Box<Answer>> {
        let head = &passing.head;
        let Some(table) = passing.snapshot.routes(&passing.manager.routes) else {
            telling.step(Stage::Route, "its route table is not there");
            return Ok(None);
        };
        let metadata = telling.metadata.clone();
        let facts = RouteFacts { random: RANDOM, scheme: head.scheme, internal: false, metadata: &metadata };
        let found = match table.find(head, &facts) {
            Found::Route(route) => Some(Arc::clone(route)),
            Found::None => None,
            Found::TlsRequired => {
                telling.step(Stage::Route, format!("{} is served by HTTPS only", head.host()));
                return Err(Box::new(Answer {
                    status: 301,
                    why: "the client is sent to HTTPS".to_owned(),
                    flag: "",
                    details: "direct_response".to_owned(),
                    location: Some(format!("https://{}{}", head.host(), head.target())),
                    policy: None,
                    places: Vec::new(),
                }));
            }
        };
        self.tell_route(telling, (table, found.as_ref()), head, &facts);
        Ok(found)
    }

    fn tell_route(
        &self,
        telling: &mut Telling,
        (table, found): (&RouteTable, Option<&Arc<Route>>),
        head: &RequestHead,
        facts: &RouteFacts<'_>,
    ) {
        // In front of an application, each request takes the one route that there is.
        let quiet = telling.role == Role::Server;
        let Some(host) = table.virtual_host(head) else {
            telling.step(Stage::Route, format!("no virtual host of {} is for {}", table.name, head.host()));
            return;
        };
        let before = match found {
            Some(found) => host.routes.iter().position(|route| Arc::ptr_eq(route, found)).unwrap_or_default(),
            None => host.routes.len(),
        };
        match found {
            Some(route) if !quiet => {
                let name = if route.name.is_empty() { String::new() } else { format!(", route {}", route.name) };
                let asks = route.origin.0.is_empty();
                let said = match (asks, before) {
                    (true, 0) if &*host.name == "allow_any" => {
                        "no service has that name: it may go where it wants".to_owned()
                    }
                    (true, 0) if &*host.name == "block_all" => "no service has that name: it may not leave".to_owned(),
                    _ => format!("virtual host {}{name}", host.name),
                };
                telling.step(Stage::Route, said).at(self.world.places(&route.origin));
            }
            Some(_) => {}
            None => {
                let said = format!("virtual host {}: none of its {} routes is for it", host.name, host.routes.len());
                telling.step(Stage::Route, said);
            }
        }
        let misses = host.routes[..before].iter().filter_map(|route| Some((route, route.miss(head, facts)?)));
        let Some((route, miss)) = misses.max_by_key(|(_, miss)| nearness(miss)) else { return };
        let others = before - 1;
        let has = match &miss {
            Miss::Header(matcher) => match matcher.looks_at(head) {
                Some(value) => format!("; here it is `{value}`"),
                None => "; here there is none".to_owned(),
            },
            Miss::Path(_) => format!("; here it is `{}`", head.path_only()),
            _ => String::new(),
        };
        let last = telling.step(Stage::Nearest, format!("only if {miss}{has}")).at(self.world.places(&route.origin));
        if others > 0 {
            last.note(format!("{others} more that stand before the one that is taken are further off"));
        }
    }

    /// All filters, in order; a filter that changes what routes look at has the route found anew.
    fn filters(&self, telling: &mut Telling, passing: &mut Passing<'_>, mut route: Option<Arc<Route>>) -> Filtered {
        let mut places = 0..passing.manager.filters.len();
        'route: loop {
            let found = route.clone();
            let forwards = found.as_deref().is_some_and(|route| matches!(route.action, Action::Forward(_)));
            let per_filter = found.as_deref().map(|route| said_by(route, &passing.head));
            for place in &mut places {
                let filter = &passing.manager.filters[place];
                let said = per_filter.and_then(|said| said.get(&filter.name));
                // As in a proxy, rules about other origins are for what goes to a cluster.
                let said = said.filter(|said| forwards || !matches!(said, Override::Cors(_)));
                match &filter.kind {
                    Kind::JwtAuthn(jwt) => match self.check_tokens(telling, passing, jwt, said) {
                        Ok(false) => {}
                        Ok(true) => match self.find_route(telling, passing) {
                            Ok(found) => {
                                route = found;
                                continue 'route;
                            }
                            Err(answer) => return Filtered::Answered(*answer),
                        },
                        Err(answer) => return Filtered::Answered(*answer),
                    },
                    _ => {
                        if let Some(answer) = self.filter(telling, passing, &filter.kind, said) {
                            return Filtered::Answered(answer);
                        }
                    }
                }
                if !matches!(filter.kind, Kind::Fault(_))
                    && let Said::Reply(reply) = filter.on_request(&passing.head, said, RANDOM)
                {
                    return Filtered::Answered(of_reply(&reply, "a filter answers", Vec::new()));
                }
            }
            return Filtered::Passed(route);
        }
    }

    fn filter(
        &self,
        telling: &mut Telling,
        passing: &Passing<'_>,
        kind: &Kind,
        said: Option<&Override>,
    ) -> Option<Answer> {
        if matches!(said, Some(Override::Disabled)) {
            return None;
        }
        match kind {
            Kind::Rbac(_) => {
                let metadata = telling.metadata.clone();
                let subject = Subject {
                    head: Some(&passing.head),
                    destination: passing.open.wire.local,
                    direct_remote: passing.open.wire.remote.ip(),
                    remote: passing.remote,
                    peer: passing.open.peer.as_ref(),
                    sni: passing.open.sni,
                    metadata: &metadata,
                };
                return self.ask(telling, passing.proxy.workload, kind.access_rules(said)?, rbac::NAME, &subject);
            }
            Kind::Fault(own) => {
                let fault = match said {
                    Some(Override::Fault(of_route)) => of_route,
                    _ => own,
                };
                tell_fault(telling, fault, &passing.head);
            }
            Kind::ExtAuthz(authz) if authz.is_enabled(&telling.metadata, RANDOM) => {
                let asked = authz.service(None).cluster().to_owned();
                telling.step(Stage::Filter, format!("the authorizer {asked} is asked; here, it agrees"));
            }
            Kind::LocalRateLimit(_) => {
                telling.step(Stage::RateLimit, "counted by this proxy: beyond the limit the answer is 429");
            }
            Kind::RateLimit(_) => {
                telling.step(Stage::RateLimit, "counted by the rate limit service: beyond the limit the answer is 429");
            }
            _ => {}
        }
        None
    }

    /// Whether the route is to be found anew.
    fn check_tokens(
        &self,
        telling: &mut Telling,
        passing: &mut Passing<'_>,
        jwt: &JwtAuthn,
        said: Option<&Override>,
    ) -> Result<bool, Box<Answer>> {
        if matches!(said, Some(Override::Disabled)) {
            return Ok(false);
        }
        if let Some(claims) = &self.question.claims {
            let payload = Fields::from([("payload".to_owned(), Value::Struct(claims.clone()))]);
            telling.metadata.merge(jwt_authn::METADATA, payload);
            telling.step(Stage::Token, "the claims are taken for those of a good token");
            return Ok(true);
        }
        let unknown = |_: &Arc<jwt_authn::RemoteKeys>| Fetched::NotYet;
        let world = jwt_authn::World { now: self.question.now, random: RANDOM, fetched: &unknown };
        match jwt.decide(&mut passing.head, said, &world) {
            Checked::Allowed(what) => {
                let some = !what.metadata.is_empty();
                let words = if some { "the token is good" } else { "no token, and none is required here" };
                telling.step(Stage::Token, words);
                telling.metadata.merge(jwt_authn::METADATA, what.metadata);
                Ok(what.clear_route)
            }
            Checked::Preflight => Ok(false),
            Checked::Denied(_, reply) => {
                let why = String::from_utf8_lossy(&reply.body).into_owned();
                telling.step(Stage::Token, why.clone());
                Err(Box::new(of_reply(&reply, &format!("the token is not taken: {why}"), Vec::new())))
            }
            Checked::Fetch(keys) => {
                let why =
                    format!("whether the token is good, the keys of {} say: suppose so by --claims", keys.authority);
                telling.step(Stage::Token, why.clone());
                Err(Box::new(Answer {
                    status: 401,
                    why,
                    flag: "",
                    details: "jwt_authn_access_denied".to_owned(),
                    location: None,
                    policy: None,
                    places: Vec::new(),
                }))
            }
        }
    }

    /// What the route does.
    fn take(&self, telling: &mut Telling, passing: Passing<'_>, route: &Arc<Route>) -> Outcome {
        let places = self.world.places(&route.origin);
        match &route.action {
            Action::Forward(action) => self.forward(telling, passing, route, action),
            Action::Redirect(redirect) => {
                let location = redirect.location(route, &passing.head);
                Outcome::Answered(Answer {
                    status: redirect.status.as_u16(),
                    why: "the route redirects".to_owned(),
                    flag: "",
                    details: "direct_response".to_owned(),
                    location: Some(location),
                    policy: None,
                    places,
                })
            }
            Action::Direct(direct) => {
                let reply = LocalReply::new(direct.status, direct.body.clone(), "direct_response");
                Outcome::Answered(of_reply(&reply, "the route answers itself", places))
            }
            Action::NonForwarding => closed("the route is for other filters".to_owned()),
        }
    }

    fn forward(&self, telling: &mut Telling, passing: Passing<'_>, route: &Arc<Route>, action: &Forward) -> Outcome {
        let head = passing.head;
        let asks = headers::says_envoy(&head.headers);
        let timeout = action.timeout(&head, asks);
        tell_forwarding(telling, action, &head, (timeout, asks), self.world.places(&route.origin).into_iter().next());
        let hash = action.hash(&head, passing.remote, RANDOM).hash;
        let tells = passing.manager.filters.iter().all(|filter| match &filter.kind {
            Kind::Router(options) => !options.suppress_envoy_headers,
            _ => true,
        });
        let mut going = Vec::new();
        for (random, share) in draws(&action.target) {
            let Some(chosen) = action.choose(&head, random) else {
                telling.step(Stage::Destination, "no header names the cluster");
                continue;
            };
            let mut up = head.clone();
            let raising = Raising { timeout, asks, tells };
            action.raise((route, &chosen), &mut up, raising, operator);
            let mut steps = Vec::new();
            if telling.role != Role::Server {
                tell_changes(&mut steps, &head, &up);
            }
            going.push(Going {
                target: Target {
                    cluster: chosen.cluster.clone().into_owned(),
                    share,
                    hash,
                    not_found: action.not_found_status.as_u16(),
                },
                payload: Payload::Http(Box::new(up.clone())),
                head: Some(Box::new(up)),
                steps,
            });
        }
        self.send(telling, passing.proxy, passing.open.wire, going)
    }
}

/// A number that leads to each cluster of a route, with the cluster's share.
fn draws(target: &ClusterTarget) -> Vec<(u64, f64)> {
    match target {
        ClusterTarget::Single(_) | ClusterTarget::Header(_) => vec![(RANDOM, 1.0)],
        ClusterTarget::Weighted { clusters, total } => {
            let total = f64::from(u32::try_from(*total).unwrap_or(u32::MAX));
            let mut before = 0;
            let mut draws = Vec::new();
            for cluster in clusters {
                if cluster.weight > 0 {
                    draws.push((before, f64::from(cluster.weight) / total));
                }
                before += u64::from(cluster.weight);
            }
            draws
        }
    }
}

/// What a route says to filters: the part of it that the request goes to, or the route itself.
fn said_by<'a>(route: &'a Route, head: &RequestHead) -> &'a PerFilter {
    let of_part = match &route.action {
        Action::Forward(action) => action.per_filter(head, RANDOM),
        _ => None,
    };
    of_part.unwrap_or(&route.per_filter)
}

/// The further down the list of conditions it came, the nearer.
fn nearness(miss: &Miss<'_>) -> u8 {
    match miss {
        Miss::Path(_) => 0,
        Miss::Share => 1,
        Miss::Grpc => 2,
        Miss::Header(_) => 3,
        Miss::Query(_) => 4,
        Miss::Metadata => 5,
    }
}

fn normalize(telling: &mut Telling, passing: &mut Passing<'_>) -> Option<Answer> {
    let answer = |status, why: &str, location| Answer {
        status,
        why: why.to_owned(),
        flag: "",
        details: "path_normalization_failed".to_owned(),
        location,
        policy: None,
        places: Vec::new(),
    };
    let before = passing.head.target().to_owned();
    match passing.manager.normalization.apply(&before) {
        Normalized::Path(path) if path == before => None,
        Normalized::Path(path) => {
            telling.step(Stage::Path, format!("{before} is taken for {path}"));
            passing.head.path = Bytes::from(path.into_owned());
            None
        }
        Normalized::Rejected => Some(answer(400, "the path is refused before anything looks at it", None)),
        Normalized::Redirect(to) => Some(answer(307, "the client is sent to the path as it is taken", Some(to))),
    }
}

fn tell_fault(telling: &mut Telling, fault: &fault::Fault, head: &RequestHead) {
    let planned = fault.planned(head);
    let of_grpc = |reply: &LocalReply| {
        reply.grpc_status.map_or_else(|| reply.status.to_string(), |code| format!("gRPC status {code}"))
    };
    let delay = planned.delay.map(|(time, share)| (share.fraction(), Millis(time)));
    let abort = planned.abort.as_ref().map(|(reply, share)| (share.fraction(), reply.status.as_u16()));
    if delay.is_none() && abort.is_none() {
        return;
    }
    let delayed = planned.delay.map(|(time, share)| format!("{} wait {time:?}", percent(share.fraction())));
    let aborted = planned
        .abort
        .as_ref()
        .map(|(reply, share)| format!("{} are answered {}", percent(share.fraction()), of_grpc(reply)));
    let said: Vec<String> = delayed.into_iter().chain(aborted).collect();
    telling.step(Stage::Fault, said.join(", "));
    telling.fault = Some(Fault { delay, abort });
}

/// `50 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if (percent - percent.round()).abs() < 0.005 { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}

fn tell_forwarding(
    telling: &mut Telling,
    action: &Forward,
    head: &RequestHead,
    (timeout, asks): (Option<std::time::Duration>, bool),
    route: Option<Place>,
) {
    let policy = if asks { action.retries(head) } else { action.retry.clone() };
    let policy = policy.filter(|policy| policy.allows(head));
    let loud = telling.role != Role::Server;
    if let Some(timeout) = timeout {
        telling.step(Stage::Timeout, format!("{timeout:?} for the whole exchange"));
    } else if loud {
        telling.step(Stage::Timeout, "none");
    }
    if let Some(policy) = &policy {
        let per_try = policy.per_try_timeout.map(|time| format!(", {time:?} each")).unwrap_or_default();
        let others = if policy.avoid_previous_hosts { ", at other hosts first" } else { "" };
        let times =
            if policy.num_retries == 1 { "once more" } else { &format!("up to {} times more", policy.num_retries) };
        let mut on: Vec<String> = policy.on.names().map(str::to_owned).collect();
        on.extend(policy.status_codes.iter().map(u16::to_string));
        telling.step(Stage::Retry, format!("{times}{per_try}{others}")).note(format!("on {}", on.join(", ")));
    } else if loud {
        telling.step(Stage::Retry, "none");
    }
    let mirrors: Vec<(String, f64)> = action
        .mirrors
        .iter()
        .filter_map(|mirror| Some((mirror.cluster(head, RANDOM)?.into_owned(), mirror.share())))
        .collect();
    for (cluster, share) in &mirrors {
        telling
            .step(Stage::Mirror, format!("copies of {} go to {cluster}, whose answers nobody reads", percent(*share)));
    }
    telling.forwarding = Some(Forwarding {
        timeout: timeout.map(Millis),
        retries: policy.as_ref().map_or(0, |policy| policy.num_retries),
        retry_on: policy.as_ref().map(|policy| policy.on.names().map(str::to_owned).collect()).unwrap_or_default(),
        per_try_timeout: policy.as_ref().and_then(|policy| policy.per_try_timeout).map(Millis),
        route,
        mirrors,
    });
}

/// What a route has changed of a request: `path /a is /b now`.
fn tell_changes(steps: &mut Vec<Step>, before: &RequestHead, after: &RequestHead) {
    let mut said = Vec::new();
    if before.target() != after.target() {
        said.push(format!("the path {} becomes {}", before.target(), after.target()));
    }
    if before.host() != after.host() {
        said.push(format!("the host {} becomes {}", before.host(), after.host()));
    }
    let values = |headers: &Headers, name: &HeaderName| {
        headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>()
    };
    // What proxies tell each other is none of the route's doing.
    let is_own = |name: &HeaderName| name.as_str().starts_with("x-envoy-");
    let mut names: Vec<&HeaderName> =
        before.headers.iter().chain(after.headers.iter()).map(|(name, _)| name).filter(|name| !is_own(name)).collect();
    names.sort_by_key(|name| name.as_str());
    names.dedup();
    for name in names {
        let (was, is) = (values(&before.headers, name), values(&after.headers, name));
        match (was.as_slice(), is.as_slice()) {
            (was, is) if was == is => {}
            (_, []) => said.push(format!("the header {name} goes")),
            (_, is) => said.push(format!("the header {name} is {}", is.join(", "))),
        }
    }
    for change in said {
        tell(steps, Stage::Rewrite, change);
    }
}

/// What operators of header values stand for, as far as that is known before anything is sent.
fn operator(operator: &Operator, headers: &Headers, line: &mut Vec<u8>) {
    let names = match operator {
        Operator::Request(first, second, _) => [Some(first), second.as_ref()],
        other => return line.extend_from_slice(format!("%{other:?}%").as_bytes()),
    };
    let found = names.into_iter().flatten().find_map(|field| match field {
        Field::Header(name) => headers.get(name).map(HeaderValue::as_bytes),
        Field::Method | Field::Path | Field::Authority | Field::Scheme => None,
    });
    line.extend_from_slice(found.unwrap_or_default());
}

pub(super) fn of_reply(reply: &LocalReply, why: &str, places: Vec<Place>) -> Answer {
    let location = reply.headers.iter().find(|(name, _)| *name == http::header::LOCATION);
    Answer {
        status: reply.status.as_u16(),
        why: why.to_owned(),
        flag: reply.flag.map_or("", |flag| flag.as_str()),
        details: reply.details.to_string(),
        location: location.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        policy: None,
        places,
    }
}

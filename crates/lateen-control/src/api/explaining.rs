//! What becomes of a request, and who may call whom: the questions that `lateen explain` and `lateen authz` answer, asked of
//! what is in force.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Query, State};
use http::{HeaderName, HeaderValue, Method};
use lateen_api::Object;
use lateen_explain::journey::Ending;
use lateen_explain::question::SOMEBODY;
use lateen_explain::{From, Objects, Question, Url, World, explain};
use lateen_mesh::{Mesh, Protocol, ProxyKind, Workload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::inventory::identity;
use super::{Api, Failure};
use crate::push::Snapshot;

/// So many calls are looked at for one answer.
const MOST_CALLS: usize = 2500;

/// A request, as somebody would send it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Asked {
    /// A workload: `NAME` or `NAME.NAMESPACE`. Empty with `via`: somebody outside.
    from: String,
    /// Of `from`, where that names none.
    namespace: String,
    /// The gateway that it comes to from outside; `gateway`, if there is only one.
    via: String,
    /// `http://reviews:9080/reviews/1`; also https, grpc, tcp and tls.
    to: String,
    /// Empty: GET.
    method: String,
    /// `name: value`
    headers: Vec<String>,
    /// Claims of a token that is taken for a good one: a JSON object.
    claims: String,
    /// Of a client outside; empty: anybody.
    address: String,
}

/// `POST /api/v1/explain`: a `lateen_explain::Journey`, as `lateen explain -o json` gives it.
#[utoipa::path(post, path = "/api/v1/explain", operation_id = "explain", request_body = Asked,
    responses((status = 200, body = Object), (status = 400, body = super::Complaint)))]
pub(super) async fn ask(State(api): State<Arc<Api>>, Json(asked): Json<Asked>) -> Result<Json<Value>, Failure> {
    let question = understood(asked).map_err(Failure::BadRequest)?;
    let journey = in_turn(&api, move |snapshot| {
        let journey = explain(&world(&snapshot), &question).map_err(|why| Failure::BadRequest(why.to_string()))?;
        serde_json::to_value(journey).map_err(|error| Failure::Internal(error.to_string()))
    });
    Ok(Json(journey.await??))
}

/// Such questions make a mesh of their own: one at a time, and on no worker.
pub(super) async fn in_turn<T: Send + 'static>(
    api: &Api,
    answer: impl FnOnce(Arc<Snapshot>) -> T + Send + 'static,
) -> Result<T, Failure> {
    // Whoever asks faster than is answered is told so, and not kept.
    let busy = |_| Failure::Unavailable("others ask too much at present: try again".to_owned());
    let _place = Arc::clone(&api.places.questions).try_acquire_owned().map_err(busy)?;
    let turn = Arc::clone(&api.places.turns).acquire_owned().await;
    let turn = turn.map_err(|error| Failure::Internal(error.to_string()))?;
    let snapshot = api.pushed.snapshot();
    let answered = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        answer(snapshot)
    });
    answered.await.map_err(|error| Failure::Internal(error.to_string()))
}

pub(super) fn world(snapshot: &Snapshot) -> World {
    let objects: Vec<Object> = snapshot.contents.objects().cloned().collect();
    World::new(objects, Objects::Running, (**snapshot.mesh().config()).clone())
}

fn understood(asked: Asked) -> Result<Question, String> {
    let url = Url::parse(asked.to.trim()).map_err(|why| why.to_string())?;
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let namespace = some(&asked.namespace).unwrap_or_else(|| "default".to_owned());
    let via = some(&asked.via);
    let from = match (some(&asked.from), &via) {
        (Some(name), _) => From::Workload { name, namespace },
        (None, Some(_)) => From::Outside(match some(&asked.address) {
            None => SOMEBODY,
            Some(text) => text.parse::<IpAddr>().map_err(|_| format!("`{text}` is no IP address"))?,
        }),
        (None, None) => return Err("say who asks: a workload, or a gateway for somebody outside".to_owned()),
    };
    let method = some(&asked.method).unwrap_or_else(|| "GET".to_owned());
    let claims = match some(&asked.claims) {
        None => None,
        Some(text) => {
            let read = lateen_engine::json::object(text.as_bytes());
            Some(read.map_err(|error| format!("the claims are no JSON object: {error}"))?)
        }
    };
    let lines = asked.headers.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
    Ok(Question {
        from,
        url,
        via,
        method: Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?,
        headers: lines.map(header).collect::<Result<_, _>>()?,
        claims,
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
    })
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("`{line}` is no header: write `name: value`"))?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("a header cannot have the value `{value}`"))?;
    Ok((name, value))
}

/// Who may call whom.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Access {
    pub(super) revision: u64,
    pub(super) clients: Vec<Client>,
    pub(super) servers: Vec<Server>,
    /// For each client, what it gets of each server.
    pub(super) calls: Vec<Vec<Call>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Client {
    pub(super) namespace: String,
    pub(super) workload: String,
    pub(super) identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Server {
    pub(super) namespace: String,
    pub(super) workload: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// What was asked: `GET http://reviews.default.svc.cluster.local:9080/`.
    pub(super) url: String,
    /// Its rules look at more than who asks, so other requests may fare otherwise.
    pub(super) depends: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Call {
    #[schema(inline)]
    pub(super) verdict: Verdict,
    pub(super) why: String,
    /// The policy that denies, `namespace/name`; empty without one.
    pub(super) policy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Allowed,
    Denied,
    /// Some are and some are not.
    Partly,
    /// It comes to nobody, for another reason than a policy.
    Unreachable,
}

#[derive(Debug, Deserialize)]
pub(super) struct Within {
    /// Only calls from or to workloads of this namespace.
    #[serde(default)]
    namespace: String,
}

/// `GET /api/v1/access?namespace=N`
#[utoipa::path(get, path = "/api/v1/access", operation_id = "access", params(("namespace" = Option<String>, Query)),
    responses((status = 200, body = Access), (status = 400, body = super::Complaint)))]
pub(super) async fn access(State(api): State<Arc<Api>>, Query(within): Query<Within>) -> Result<Json<Access>, Failure> {
    let found = in_turn(&api, move |snapshot| of_all(&world(&snapshot), snapshot.revision, &within.namespace)).await?;
    found.map(Json)
}

pub(super) fn of_all(world: &World, revision: u64, namespace: &str) -> Result<Access, Failure> {
    let mesh = &world.mesh;
    // Of equal workloads, one speaks for all.
    let mut members: BTreeMap<(&str, &str), &Workload> = BTreeMap::new();
    for workload in mesh.workloads().filter(|workload| workload.proxy != ProxyKind::None) {
        members.entry((&workload.namespace, &workload.owner)).or_insert(workload);
    }
    let clients: Vec<&Workload> = members.values().copied().collect();
    let servers: Vec<Server> = clients.iter().flat_map(|workload| ports_of(mesh, workload)).collect();
    let of_interest = |client: &Workload, server: &Server| {
        namespace.is_empty() || *client.namespace == *namespace || server.namespace == namespace
    };
    let wanted = clients.iter().flat_map(|client| servers.iter().filter(|server| of_interest(client, server))).count();
    if wanted > MOST_CALLS {
        return Err(Failure::BadRequest(format!(
            "{wanted} calls are possible, of which {MOST_CALLS} are looked at at a time: choose a namespace"
        )));
    }
    let row = |client: &&Workload| servers.iter().map(|server| verdict(world, client, server)).collect();
    let kept: Vec<&Workload> =
        clients.iter().filter(|client| servers.iter().any(|server| of_interest(client, server))).copied().collect();
    Ok(Access {
        revision,
        calls: kept.iter().map(row).collect(),
        clients: kept
            .iter()
            .map(|client| Client {
                namespace: client.namespace.to_string(),
                workload: client.owner.to_string(),
                identity: identity(mesh, client),
            })
            .collect(),
        servers,
    })
}

/// One port of each service that a workload stands behind: policies that tell ports apart say so by `depends`.
fn ports_of(mesh: &Mesh, workload: &Workload) -> Vec<Server> {
    let policies = mesh.authorization(workload);
    let mut rules =
        [&policies.custom, &policies.deny, &policies.allow].into_iter().flatten().flat_map(|policy| &policy.spec.rules);
    let depends = rules.any(|rule| !rule.to.is_empty() || !rule.when.is_empty());
    let services = mesh.services_of(workload);
    let first = services.iter().filter_map(|service| {
        let port = service.ports.iter().find(|port| port.protocol != Protocol::Udp)?;
        let scheme = match port.protocol {
            Protocol::Grpc | Protocol::GrpcWeb => "grpc",
            Protocol::Http | Protocol::Http2 | Protocol::Sniffed => "http",
            _ => "tcp",
        };
        Some(Server {
            namespace: workload.namespace.to_string(),
            workload: workload.owner.to_string(),
            service: service.host.to_string(),
            port: port.number,
            url: format!("{scheme}://{}:{}{}", service.host, port.number, if scheme == "tcp" { "" } else { "/" }),
            depends,
        })
    });
    first.take(1).collect()
}

fn verdict(world: &World, client: &Workload, server: &Server) -> Call {
    let unreachable = |why: String| Call { verdict: Verdict::Unreachable, why, policy: String::new() };
    let url = match Url::parse(&server.url) {
        Ok(url) => url,
        Err(why) => return unreachable(why.to_string()),
    };
    let question = Question {
        from: From::Workload { name: client.name.to_string(), namespace: client.namespace.to_string() },
        url,
        via: None,
        method: Method::GET,
        headers: Vec::new(),
        claims: None,
        now: 0,
    };
    match explain(world, &question) {
        Ok(journey) => judged(&journey.results),
        Err(why) => unreachable(why.to_string()),
    }
}

fn judged(endings: &[Ending]) -> Call {
    let denied: f64 =
        endings.iter().filter(|ending| ending.policy.is_some() || is_refusal(ending)).map(|it| it.share).sum();
    let served: f64 = endings.iter().filter(|ending| ending.served_by.is_some()).map(|it| it.share).sum();
    let first = endings.iter().find(|ending| ending.served_by.is_none()).or_else(|| endings.first());
    let (verdict, told) = match (served > 0.0, denied > 0.0) {
        (true, false) => (Verdict::Allowed, endings.iter().find(|ending| ending.served_by.is_some())),
        (true, true) => (Verdict::Partly, first),
        (false, true) => (Verdict::Denied, first),
        (false, false) => (Verdict::Unreachable, first),
    };
    Call {
        verdict,
        why: told.map(|ending| ending.why.clone()).unwrap_or_default(),
        policy: told.and_then(|ending| ending.policy.clone()).unwrap_or_default(),
    }
}

/// A proxy's own no, which need not name a policy: nothing allows it.
fn is_refusal(ending: &Ending) -> bool {
    ending.served_by.is_none() && matches!(ending.status, Some(401 | 403))
}

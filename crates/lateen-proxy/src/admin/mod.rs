//! The admin port, with Envoy's paths and shapes.

pub(crate) mod app_health;
pub(crate) mod application;
mod certs;
mod config_dump;
mod guard;
pub(crate) mod health;
mod hosts;
pub(crate) mod ports;
mod query;
pub(crate) mod request;
mod stats;
pub(crate) mod wait;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use serde::Serialize as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Order, Workers, tell};
use crate::lifecycle::State;
use crate::logging;
use crate::worker::Shared;
use query::Query;

const COMMANDS: &str = "admin commands are:
  /: Admin home page
  /certs: print certs on machine
  /clusters: upstream cluster status
      filter: Regular expression for filtering clusters by name
      format: File format to use; One of (text, json)
  /config_dump: dump current configs
      resource: The resource to dump
      mask: The mask to apply. When both resource and mask are specified, the mask is applied to every element in the \
desired repeated field so that only a subset of fields are returned
      name_regex: Dump only the currently loaded configurations whose names match the specified regex
      include_eds: Dump currently loaded configuration including EDS
  /drain_connections (POST): have the connections that there are end politely, and take new ones
      inboundonly: Only connections to the workload
      time_s: End those for good that have not ended after so many seconds
  /ejections: print hosts that outlier detection keeps out, in JSON
  /help: print out list of admin commands
  /listeners: print listener info
      format: File format to use; One of (text, json)
  /logging (POST): print the levels to which parts of the program log, and change them
      paths: Levels of several parts, as <name1>:<level1>,<name2>:<level2>
      level: Level of all parts; One of (trace, debug, info, warning, error, critical, off)
  /quitquitquit (POST): exit the server
  /ready: print server state, return 200 if LIVE, otherwise return 503
  /server_info: print server version/status information
  /stats: print server stats
      usedonly: Only include stats that have been written by system since restart
      filter: Regular expression for filtering stats
      format: Format to use; One of (text, json, prometheus)
      type: Stat types to include; One of (All, Counters, Gauges, Histograms)
  /stats/prometheus: print server stats in prometheus format
      usedonly: Only include stats that have been written by system since restart
      filter: Regular expression for filtering stats
";

#[derive(Debug)]
pub struct Admin {
    origin: config_dump::Origin,
    /// Of the node, for `/server_info`.
    node: Value,
    control: Control,
    started: Instant,
}

/// What the admin port may set off.
#[derive(Debug)]
pub(crate) struct Control {
    pub quit: watch::Sender<bool>,
    pub workers: Workers,
    /// How long connections may take to end.
    pub drain_time: Duration,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>, bootstrap: &Bootstrap, control: Control) -> Self {
        let node = bootstrap.node.as_ref();
        let node = node.map_or_else(|| json!({}), |node| json!({ "id": node.id, "cluster": node.cluster }));
        let origin =
            config_dump::Origin { shared, bootstrap: bootstrap.encode_to_vec().into(), since: SystemTime::now() };
        Self { origin, node, control, started: Instant::now() }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        if let Some((status, complaint)) = guard::refusal(request.headers()) {
            return text(status, complaint);
        }
        let path = request.uri().path();
        let shared = &self.origin.shared;
        let query = Query::new(request.uri().query());
        if matches!(path, "/quitquitquit" | "/drain_connections" | "/logging") && request.method() != Method::POST {
            let complaint = format!("Method {} not allowed, POST required.", request.method());
            return text(StatusCode::METHOD_NOT_ALLOWED, complaint);
        }
        let json_wanted = query.value("format") == Some("json");
        match path {
            "/" | "/help" => text(StatusCode::OK, COMMANDS),
            "/quitquitquit" => {
                self.control.quit.send_replace(true);
                text(StatusCode::OK, "OK\n")
            }
            "/drain_connections" => self.drain_connections(&query),
            "/ejections" => json_answer(&hosts::ejections(shared)),
            "/logging" => match logging::change(query.iter()) {
                Ok(levels) => text(StatusCode::OK, levels),
                Err(complaint) => text(StatusCode::BAD_REQUEST, complaint),
            },
            "/ready" => self.ready(),
            "/server_info" => json_answer(&self.server_info()),
            "/listeners" if json_wanted => json_answer(&hosts::listeners(shared)),
            "/listeners" => text(StatusCode::OK, hosts::listeners_text(shared)),
            "/clusters" if json_wanted => json_answer(&hosts::clusters(shared)),
            "/clusters" => self.clusters(&query),
            // These read files, or write down everything: others are to be served meanwhile.
            "/config_dump" | "/certs" | "/stats" | "/stats/prometheus" => {
                let admin = Arc::clone(&self);
                let answered = tokio::task::spawn_blocking(move || admin.answer_slowly(&request)).await;
                answered.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made\n"))
            }
            _ => text(StatusCode::NOT_FOUND, format!("invalid path. {COMMANDS}")),
        }
    }

    fn answer_slowly(&self, request: &Request<Incoming>) -> Answer {
        match request.uri().path() {
            "/certs" => json_answer(&certs::certificates(&self.origin.shared)),
            "/stats" => stats::stats(&self.origin.shared.stats, &Query::new(request.uri().query())),
            "/stats/prometheus" => stats::prometheus(&self.origin.shared.stats, &Query::new(request.uri().query())),
            _ => config_dump::answer(&self.origin, &Query::new(request.uri().query())),
        }
    }

    /// Connections that clients keep for long, spread again: each is told to end, and is made anew.
    fn drain_connections(&self, query: &Query<'_>) -> Answer {
        let time = match query.value("time_s").map(str::parse).transpose() {
            Ok(seconds) => seconds.map_or(self.control.drain_time, Duration::from_secs),
            Err(_) => return text(StatusCode::BAD_REQUEST, "time_s must be a number of seconds\n"),
        };
        let inbound_only = query.has("inboundonly");
        tell(&self.control.workers, || Order::DrainConnections { inbound_only, time });
        text(StatusCode::OK, "OK\n")
    }

    fn ready(&self) -> Answer {
        let state = self.origin.shared.lifecycle.state();
        let status = if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{}\n", state.name()))
    }

    fn clusters(&self, query: &Query<'_>) -> Answer {
        match query.value("filter").map(regex::Regex::new).transpose() {
            Ok(filter) => {
                let wanted = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
                text(StatusCode::OK, hosts::clusters_text(&self.origin.shared, wanted))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("Invalid re2 regex: {error}\n")),
        }
    }

    /// `envoy.admin.v3.ServerInfo`.
    fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.started.elapsed().as_secs());
        json!({
            "version": concat!("lateen-proxy/", env!("CARGO_PKG_VERSION")),
            "state": self.origin.shared.lifecycle.state().name(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "node": self.node,
        })
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=UTF-8", body.into())
}

/// Envoy indents by one.
fn json_answer(value: &Value) -> Answer {
    let mut body = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, indented));
    if let Err(error) = written {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    }
    body.push(b'\n');
    answer(StatusCode::OK, "application/json", body.into())
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

/// Serves the admin port for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    serve_with(listener, move |request| Arc::clone(&admin).answer(request)).await;
}

/// This many connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 64;

async fn serve_with<A: Future<Output = Answer> + Send + 'static>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> A + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            // Idle connections are not kept: they would take the place of others. A client that breaks off is its own affair.
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

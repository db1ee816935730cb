//! The admin port, with Envoy's paths and shapes.

mod dump;
pub(crate) mod health;
pub(crate) mod ports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::worker::Shared;

const HELP: &str = "admin commands are:\n\
  /certs: certificates that are served\n\
  /clusters: upstream clusters and their hosts\n\
  /config_dump: the configuration in force\n\
  /help: this page\n\
  /listeners: listeners and their addresses\n\
  /quitquitquit (POST): drain and end\n\
  /ready: whether the proxy serves\n\
  /server_info: version and state\n\
  /stats: counters and gauges; ?format=json, ?filter=TEXT\n\
  /stats/prometheus: the same for Prometheus, with histograms\n";

#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    bootstrap: Bootstrap,
    listeners: Vec<(Arc<str>, SocketAddr)>,
    quit: watch::Sender<bool>,
    started: Instant,
    start_time: SystemTime,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub(crate) fn new(
        shared: Arc<Shared>,
        bootstrap: Bootstrap,
        listeners: Vec<(Arc<str>, SocketAddr)>,
        quit: watch::Sender<bool>,
    ) -> Self {
        Self { shared, bootstrap, listeners, quit, started: Instant::now(), start_time: SystemTime::now() }
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let json_wanted = parameter("format") == Some("json");
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/quitquitquit") => {
                self.quit.send_replace(true);
                text(StatusCode::OK, "OK\n")
            }
            (_, "/quitquitquit") => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed: POST is required\n"),
            (&Method::GET | &Method::HEAD, path) => match path {
                "/" | "/help" => text(StatusCode::OK, HELP),
                "/ready" => text(StatusCode::OK, "LIVE\n"),
                "/server_info" => json(&self.server_info()),
                "/listeners" if json_wanted => json(&dump::listeners(&self.listeners)),
                "/listeners" => text(
                    StatusCode::OK,
                    self.listeners.iter().map(|(name, at)| format!("{name}::{at}\n")).collect::<String>(),
                ),
                "/clusters" if json_wanted => json(&dump::clusters(&self.shared)),
                "/clusters" => text(StatusCode::OK, dump::clusters_text(&self.shared)),
                "/config_dump" => match dump::config(&self.bootstrap, self.start_time) {
                    Ok(dump) => json(&dump),
                    Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                },
                "/certs" => json(&json!({ "certificates": self.shared.tls.certificates() })),
                "/stats/prometheus" => text(StatusCode::OK, self.shared.stats.prometheus()),
                "/stats" if parameter("format") == Some("prometheus") => {
                    text(StatusCode::OK, self.shared.stats.prometheus())
                }
                "/stats" => self.stats(parameter("filter").unwrap_or_default(), json_wanted),
                _ => text(StatusCode::NOT_FOUND, "invalid path. admin commands are listed at /help\n"),
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        }
    }

    fn stats(&self, filter: &str, json_wanted: bool) -> Answer {
        let numbers = self.shared.stats.numbers().into_iter().filter(|(name, _)| name.contains(filter));
        if json_wanted {
            let stats: Vec<_> = numbers.map(|(name, value)| json!({ "name": name, "value": value })).collect();
            return json(&json!({ "stats": stats }));
        }
        text(StatusCode::OK, numbers.map(|(name, value)| format!("{name}: {value}\n")).collect::<String>())
    }

    fn server_info(&self) -> serde_json::Value {
        json!({
            "version": concat!("lateen-proxy/", env!("CARGO_PKG_VERSION")),
            "state": "LIVE",
            "uptime_current_epoch": format!("{}s", self.started.elapsed().as_secs()),
            "uptime_all_epochs": format!("{}s", self.started.elapsed().as_secs()),
            "node": { "id": self.bootstrap.node.as_ref().map(|node| &node.id), "cluster": self.bootstrap.node.as_ref().map(|node| &node.cluster) },
        })
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=UTF-8", body.into())
}

fn json(value: &serde_json::Value) -> Answer {
    answer(StatusCode::OK, "application/json", format!("{value:#}\n").into())
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
    serve_with(listener, move |request| admin.answer(request)).await;
}

/// This many connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 64;

async fn serve_with(listener: TcpListener, answer: impl Fn(&Request<Incoming>) -> Answer + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            // Idle connections are not kept: they would take the place of others. A client that breaks off is its own affair.
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

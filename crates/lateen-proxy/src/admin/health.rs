//! Health and metrics of a proxy in a mesh, for the machine that runs the pod and for whoever scrapes it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::app_health::Probers;
use super::application::{self, Application};
use super::{Answer, text};
use crate::lifecycle::State;
use crate::telemetry::stats::Counter;
use crate::worker::Shared;

/// What readiness is made of.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
    certificate: watch::Receiver<bool>,
    application: Option<Arc<Scraped>>,
    /// How the application is, for whoever cannot ask itself.
    probers: Option<Arc<Probers>>,
}

/// An application whose metrics are given together with the proxy's, and what is counted of that (Istio's agent).
#[derive(Debug)]
struct Scraped {
    application: Application,
    scrapes: Counter,
    failures: Counter,
}

impl Health {
    pub(crate) fn new(shared: Arc<Shared>, certificate: watch::Receiver<bool>) -> Self {
        Self { shared, certificate, application: None, probers: None }
    }

    /// The same, with metrics of the application where it has some.
    pub(crate) fn with_application(mut self, application: Option<Application>) -> Self {
        let stats = &self.shared.stats;
        let counter = |name: &str, tags| stats.lasting_counter(&Arc::from(name), &tags);
        let of_application = Arc::from([(Arc::from("type"), Box::from("application"))]);
        self.application = application.map(|application| {
            Arc::new(Scraped {
                application,
                scrapes: counter("istiocustom.istio_agent_scrapes_total", Arc::from([])),
                failures: counter("istiocustom.istio_agent_scrape_failures_total", of_application),
            })
        });
        self
    }

    /// The same, and asks the application for others.
    pub(crate) fn with_probers(mut self, probers: Option<Arc<Probers>>) -> Self {
        self.probers = probers;
        self
    }

    /// What is still missing; nothing once the proxy has been ready.
    fn missing(&self) -> Option<&'static str> {
        match self.shared.lifecycle.state() {
            State::PreInitializing if !*self.certificate.borrow() => Some("no certificate yet\n"),
            State::PreInitializing => Some("no clusters yet\n"),
            State::Initializing => Some("no listeners yet, or listeners or clusters wait for what they refer to\n"),
            State::Live => None,
            State::Draining => Some("draining\n"),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(probers) = &self.probers
            && request.method() == Method::GET
            && (path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/"))
        {
            return probers.answer(path).await;
        }
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/healthz/ready") => match self.missing() {
                None => text(StatusCode::OK, ""),
                Some(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
            (&Method::GET, "/stats/prometheus") => self.metrics(&request).await,
            _ => text(StatusCode::NOT_FOUND, "there are GET /healthz/ready and GET /stats/prometheus\n"),
        }
    }

    /// The proxy's, and the application's if it gives them: one that does not is counted, and the proxy's are given all the same.
    async fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let mut of_application = Bytes::new();
        if let Some(scraped) = &self.application {
            scraped.scrapes.inc();
            of_application = scraped.application.metrics(request.headers()).await.unwrap_or_else(|error| {
                scraped.failures.inc();
                tracing::debug!(%error, "the application's metrics could not be had");
                Bytes::new()
            });
        }
        let shared = Arc::clone(&self.shared);
        // Many series take their time to be written down.
        let own = tokio::task::spawn_blocking(move || shared.stats.prometheus(|_, _| true));
        match own.await {
            Ok(own) => text(StatusCode::OK, application::together(own, &of_application)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made\n"),
        }
    }
}

/// Serves for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    super::serve_with(listener, move |request| Arc::clone(&health).answer(request)).await;
}

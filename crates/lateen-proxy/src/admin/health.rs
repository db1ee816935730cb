//! Health and metrics of a proxy in a mesh, for the machine that runs the pod and for whoever scrapes it.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Answer, text};
use crate::lifecycle::State;
use crate::worker::Shared;

/// What readiness is made of.
#[derive(Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
    certificate: watch::Receiver<bool>,
}

impl Health {
    pub(crate) fn new(shared: Arc<Shared>, certificate: watch::Receiver<bool>) -> Self {
        Self { shared, certificate }
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

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz/ready") => match self.missing() {
                None => text(StatusCode::OK, ""),
                Some(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
            (&Method::GET, "/stats/prometheus") => text(StatusCode::OK, self.shared.stats.prometheus(|_, _| true)),
            _ => text(StatusCode::NOT_FOUND, "there are GET /healthz/ready and GET /stats/prometheus\n"),
        }
    }
}

/// Serves for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    super::serve_with(listener, move |request| std::future::ready(health.answer(&request))).await;
}

//! The webhook by which an API server has pods injected (`admission.k8s.io/v1`), and what belongs to it: the certificate's
//! authority in the webhook's configuration, and the injector's configuration from its ConfigMap.
//!
//! Whether the namespace asks for injection the API server has decided, by the selectors of the webhook's configuration, before it
//! asks here.

pub(crate) mod configuration;
mod review;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::inject::Settings;
use crate::listen::{self, Connection};
use crate::metrics::Metrics;
use crate::store::Store;
use review::Outcome;

/// An API server takes no object that is longer than three megabytes, and sends at most two.
const MAX_REVIEW: usize = 8 << 20;

/// What answers.
pub(crate) struct Webhook {
    pub(crate) store: Store,
    /// As the ConfigMap has them now.
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) metrics: Metrics,
}

impl Webhook {
    /// Answers until it is time to stop.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<ArcSwap<ServerConfig>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        let router = Router::new()
            // Istio's webhooks have more segments in their paths, which say where the pod is; that is known here.
            .route("/inject", post(inject))
            .route("/inject/{*rest}", post(inject))
            .route("/ready", get(|| async { StatusCode::OK }))
            .layer(DefaultBodyLimit::max(MAX_REVIEW))
            .with_state(Arc::new(self));
        let connections = Connections { accepted: listen::web(listener, tls), address };
        Ok(axum::serve(connections, router).with_graceful_shutdown(stop.cancelled_owned()).await?)
    }
}

async fn inject(State(webhook): State<Arc<Webhook>>, Json(asked): Json<Value>) -> Response {
    let (metrics, since) = (&webhook.metrics.injection, Instant::now());
    metrics.asked.inc();
    let answered = review::answer(&asked, &webhook.store.contents(), &webhook.settings.load());
    metrics.time.observe(since.elapsed().as_secs_f64());
    let counter = match answered.as_ref().map(|answer| answer.outcome) {
        Ok(Outcome::Injected) => &metrics.injected,
        Ok(Outcome::LeftAlone) => &metrics.skipped,
        Ok(Outcome::Refused) | Err(_) => &metrics.failed,
    };
    counter.inc();
    match answered {
        Ok(answer) => Json(answer.review).into_response(),
        Err(reason) => (StatusCode::BAD_REQUEST, reason).into_response(),
    }
}

/// Secured connections, as axum takes them.
struct Connections {
    accepted: ReceiverStream<std::io::Result<Connection>>,
    address: SocketAddr,
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.accepted.next().await {
                Some(Ok(connection)) => return (connection, self.address),
                // One client's failure is its own affair.
                Some(Err(_)) => {}
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

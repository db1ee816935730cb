//! Roots of other trust domains, fetched from their bundle endpoints (SPIFFE Federation, profiles `https_web` and `https_spiffe`)
//! and kept fresh.
//!
//! What was heard last holds while an endpoint cannot be reached, or says what is no bundle. What was never heard is not trusted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use lateen_identity::TrustBundle;
use lateen_identity::bundle::Published;
use lateen_identity::tls::{ExpectedPeer, Roots as Trusted, mesh_client, web_client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mesh_settings::{Anchor, Endpoint, KnownBy, Roots};
use crate::trust::Bundles;
use crate::web::{Client, anywhere, https};

/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked where it does not say (SPIFFE Trust Domain and Bundle, section 4.1.2), and within which bounds it may.
const USUAL: Duration = Duration::from_secs(300);
const OFTENEST: Duration = Duration::from_secs(1);
const SELDOMEST: Duration = Duration::from_secs(24 * 3600);
/// The first and the longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// No bundle is longer.
const LONGEST: usize = 1 << 20;

/// The endpoints, and where their bundles go.
pub(crate) struct Federation {
    /// By URL: what two entries name is asked for once.
    endpoints: BTreeMap<String, Endpoint>,
    /// Whose certificates endpoints have that are known by their names, in place of the public authorities.
    ca: Option<PathBuf>,
    bundles: watch::Sender<Bundles>,
}

impl Federation {
    pub(crate) fn new(anchors: &[Anchor], ca: Option<PathBuf>) -> (Self, watch::Receiver<Bundles>) {
        let endpoints = anchors.iter().filter_map(|anchor| match &anchor.roots {
            Roots::Fetched(endpoint) => Some((endpoint.url.clone(), endpoint.clone())),
            Roots::Given(_) => None,
        });
        let (bundles, receiver) = watch::channel(Bundles::new());
        (Self { endpoints: endpoints.collect(), ca, bundles }, receiver)
    }

    /// Keeps all bundles fresh until it is time to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for endpoint in self.endpoints.into_values() {
            tasks.spawn(keep(endpoint, self.ca.clone(), self.bundles.clone()));
        }
        stop.cancelled().await;
    }
}

async fn keep(endpoint: Endpoint, ca: Option<PathBuf>, bundles: watch::Sender<Bundles>) {
    let url = &endpoint.url;
    let mut pause = FIRST_PAUSE;
    let mut known: Option<Published> = None;
    loop {
        let roots = known.as_ref().map(|known| &known.roots);
        let fetched = tokio::time::timeout(PATIENCE, fetch(&endpoint, roots, ca.as_ref())).await;
        let fetched = fetched.unwrap_or_else(|_| bail_late());
        let wait = match fetched.and_then(|published| newer(published, known.as_ref())) {
            Ok(published) => {
                let is_news = bundles.send_if_modified(|bundles| {
                    let is_news = bundles.get(url) != Some(&published.roots);
                    bundles.insert(url.clone(), published.roots.clone());
                    is_news
                });
                if is_news {
                    tracing::info!(target: "audit", url, sequence = published.sequence, "the roots of another trust domain have come");
                }
                pause = FIRST_PAUSE;
                known.insert(published).refresh.unwrap_or(USUAL).clamp(OFTENEST, SELDOMEST)
            }
            Err(error) => {
                tracing::warn!(url, error = format!("{error:#}"), "no roots can be had; what was heard last holds");
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        // Not all who ask the same server at the same time.
        tokio::time::sleep(wait.mul_f64(0.9 + 0.1 * rand::random::<f64>())).await;
    }
}

fn bail_late() -> anyhow::Result<Published> {
    bail!("no answer within {} s", PATIENCE.as_secs())
}

fn newer(published: Published, known: Option<&Published>) -> anyhow::Result<Published> {
    match known {
        Some(known) if published.is_before(known) => {
            bail!("its bundle's sequence number {:?} was {:?} before", published.sequence, known.sequence)
        }
        _ => Ok(published),
    }
}

/// Asks once; `roots` are the newest of the endpoint's trust domain.
async fn fetch(endpoint: &Endpoint, roots: Option<&TrustBundle>, ca: Option<&PathBuf>) -> anyhow::Result<Published> {
    let uri = https(&endpoint.url)?;
    let config = match (&endpoint.known_by, ca) {
        // SPIFFE Federation, section 5.2.2: by the newest bundle that there is, at first the one that was given.
        (Some(KnownBy { id, first }), _) => {
            mesh_client(None, roots.unwrap_or(first), ExpectedPeer::Sans(vec![id.clone()]), &[b"http/1.1"])?
        }
        (None, None) => web_client(Trusted::Public, None, &[b"http/1.1"])?,
        (None, Some(file)) => {
            let pem = tokio::fs::read(file).await.with_context(|| file.display().to_string())?;
            let roots = TrustBundle::from_pem(&pem).with_context(|| file.display().to_string())?;
            web_client(Trusted::Given(&roots), None, &[b"http/1.1"])?
        }
    };
    let mut request = Request::new(Full::new(Bytes::new()));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let client = Client { tls: Arc::new(config), is_permitted: &anywhere, longest: LONGEST };
    let answer = client.ask(&uri, request).await?;
    if answer.status() != StatusCode::OK {
        bail!("it answers {}", answer.status());
    }
    Ok(Published::from_json(answer.body())?)
}

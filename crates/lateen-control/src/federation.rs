//! Roots of other trust domains, fetched from their bundle endpoints (SPIFFE Federation, profile `https_web`) and kept fresh.
//!
//! What was heard last holds while an endpoint cannot be reached, or says what is no bundle. What was never heard is not trusted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use lateen_identity::TrustBundle;
use lateen_identity::bundle::Published;
use lateen_identity::tls::{Roots as Trusted, web_client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mesh_settings::{Anchor, Roots};
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
    urls: BTreeSet<String>,
    /// Whose certificates the endpoints have, in place of the public authorities.
    ca: Option<PathBuf>,
    bundles: watch::Sender<Bundles>,
}

impl Federation {
    pub(crate) fn new(anchors: &[Anchor], ca: Option<PathBuf>) -> (Self, watch::Receiver<Bundles>) {
        let urls = anchors.iter().filter_map(|anchor| match &anchor.roots {
            Roots::Fetched(url) => Some(url.clone()),
            Roots::Given(_) => None,
        });
        let (bundles, receiver) = watch::channel(Bundles::new());
        (Self { urls: urls.collect(), ca, bundles }, receiver)
    }

    /// Keeps all bundles fresh until it is time to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for url in self.urls {
            tasks.spawn(keep(url, self.ca.clone(), self.bundles.clone()));
        }
        stop.cancelled().await;
    }
}

async fn keep(url: String, ca: Option<PathBuf>, bundles: watch::Sender<Bundles>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let fetched = tokio::time::timeout(PATIENCE, fetch(&url, ca.as_ref())).await;
        let fetched = fetched.unwrap_or_else(|_| bail_late());
        let wait = match fetched {
            Ok(Published { roots, refresh }) => {
                let is_news = bundles.send_if_modified(|bundles| {
                    let is_news = bundles.get(&url) != Some(&roots);
                    bundles.insert(url.clone(), roots);
                    is_news
                });
                if is_news {
                    tracing::info!(target: "audit", url, "the roots of another trust domain have come");
                }
                pause = FIRST_PAUSE;
                refresh.unwrap_or(USUAL).clamp(OFTENEST, SELDOMEST)
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

async fn fetch(url: &str, ca: Option<&PathBuf>) -> anyhow::Result<Published> {
    let uri = https(url)?;
    let config = match ca {
        None => web_client(Trusted::Public, None, &[b"http/1.1"])?,
        Some(file) => {
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

//! OpenID Connect issuers whose tokens callers may show: their keys are fetched before anybody comes, fetched anew now and then
//! and when a token names one that is not known, and kept while they cannot be had.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use lateen_api::caller_issuers::{self, CallerIssuer};
use lateen_identity::token::AUDIENCE;
use lateen_identity::token::oidc::{self, Issuer, KeySet, Naming, OidcError, Vouched};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::keys::{Fetcher, Options};
use crate::metrics::Metrics;

/// How long an issuer may take to say its keys.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// A token with an unknown key makes us ask again, if the last time was so long ago: anybody can make such tokens.
const AGAIN: Duration = Duration::from_secs(10);
/// Keys that could not be had for so long are not used any more.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The issuers, each with the keys that it is known to have. Cloning shares.
#[derive(Clone)]
pub struct Issuers(Arc<Shared>);

struct Shared {
    known: Vec<Arc<Known>>,
    /// What keeps their keys fresh; ends with this.
    _tasks: JoinSet<()>,
}

struct Known {
    issuer: Issuer,
    foreign_pods: bool,
    keys: ArcSwapOption<KeySet>,
    /// Told when a token has come that was signed by an unknown key.
    unknown_key: Notify,
}

/// Why a token of one of them is nobody's.
#[derive(Debug, thiserror::Error)]
pub enum NotVouched {
    #[error("the token of {0} does not hold: {1}")]
    Refused(String, OidcError),
    #[error("the keys of {0} are not known at present")]
    NoKeys(String),
}

/// Where keys are.
enum Place {
    /// They stay as they are.
    Given(KeySet),
    File(PathBuf),
    Uri(String, Fetcher),
    Discovery(String, Fetcher),
}

/// Reads the file that names them.
///
/// # Errors
/// A file that cannot be read, or the mistakes in it.
pub fn load(file: &Path) -> anyhow::Result<Vec<CallerIssuer>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (read, mistakes) = caller_issuers::parse(&file.display().to_string(), &text);
    if !mistakes.is_empty() {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        bail!("the callers' issuers cannot be used\n{}", mistakes.join("\n"));
    }
    Ok(read.issuers)
}

/// Begins to get their keys, and goes on until the last clone is dropped.
///
/// # Errors
/// Keys or certificates that are given and cannot be used.
pub fn start(issuers: Vec<CallerIssuer>, refresh: Duration, metrics: &Metrics) -> anyhow::Result<Issuers> {
    let (mut known, mut tasks) = (Vec::new(), JoinSet::new());
    for issuer in issuers {
        let place = Place::of(&issuer, refresh, metrics).with_context(|| issuer.issuer.clone())?;
        let one = Arc::new(Known::of(issuer));
        match place {
            Place::Given(keys) => one.keys.store(Some(Arc::new(keys))),
            place => drop(tasks.spawn(keep(Arc::clone(&one), place, refresh))),
        }
        known.push(one);
    }
    Ok(Issuers(Arc::new(Shared { known, _tasks: tasks })))
}

impl Issuers {
    /// Whom a token speaks for; none if it is of none of these issuers.
    pub fn verify(&self, token: &str) -> Option<Result<Vouched, NotVouched>> {
        if self.0.known.is_empty() {
            return None;
        }
        let name = oidc::claimed_issuer(token)?;
        let known = self.0.known.iter().find(|known| known.issuer.issuer == name)?;
        let Some(keys) = known.keys.load_full() else { return Some(Err(NotVouched::NoKeys(name))) };
        let verified = known.issuer.verify(token, &keys, SystemTime::now());
        if verified == Err(OidcError::UnknownKey) {
            known.unknown_key.notify_one();
        }
        let vouched = verified.map_err(|error| NotVouched::Refused(name, error));
        Some(vouched.map(|vouched| Vouched { pod: vouched.pod.filter(|_| !known.foreign_pods), ..vouched }))
    }
}

impl Known {
    fn of(issuer: CallerIssuer) -> Self {
        let optional = |text: String| (!text.is_empty()).then_some(text);
        let naming = match optional(issuer.service_account_claim) {
            None => Naming::Kubernetes,
            Some(service_account) => Naming::Claims { namespace: optional(issuer.namespace_claim), service_account },
        };
        let audiences = match issuer.audiences.is_empty() {
            true => vec![AUDIENCE.to_owned()],
            false => issuer.audiences,
        };
        Self {
            issuer: Issuer { issuer: issuer.issuer, audiences, naming, namespaces: issuer.namespaces },
            foreign_pods: issuer.foreign_pods,
            keys: ArcSwapOption::empty(),
            unknown_key: Notify::new(),
        }
    }
}

impl Place {
    fn of(issuer: &CallerIssuer, refresh: Duration, metrics: &Metrics) -> anyhow::Result<Self> {
        if !issuer.jwks.is_empty() {
            return Ok(Self::Given(KeySet::from_json(issuer.jwks.as_bytes()).context("jwks")?));
        }
        if !issuer.jwks_file.is_empty() {
            let file = PathBuf::from(&issuer.jwks_file);
            read(&std::fs::read(&file).with_context(|| file.display().to_string())?)
                .with_context(|| file.display().to_string())?;
            return Ok(Self::File(file));
        }
        // Whoever writes this file runs the control plane: the places that it names may be anywhere.
        let options = Options {
            allowed: vec![IpNet::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0)?, "::/0".parse()?],
            trusted: Some(PathBuf::from(&issuer.ca_file)).filter(|_| !issuer.ca_file.is_empty()),
            refresh,
        };
        let fetcher = Fetcher::new(&options, metrics.clone()).context("caFile")?;
        Ok(match issuer.jwks_uri.is_empty() {
            true => Self::Discovery(issuer.issuer.clone(), fetcher),
            false => Self::Uri(issuer.jwks_uri.clone(), fetcher),
        })
    }

    async fn keys(&self) -> anyhow::Result<KeySet> {
        match self {
            Self::Given(keys) => Ok(keys.clone()),
            Self::File(file) => read(&tokio::fs::read(file).await?),
            Self::Uri(uri, fetcher) => read(&fetcher.get(uri).await?),
            Self::Discovery(issuer, fetcher) => {
                let announced = fetcher.announced(issuer).await?;
                // OpenID Connect Discovery 1.0, section 4.3: else somebody else's document is taken for this issuer's.
                if announced.issuer != *issuer {
                    bail!("the discovery document is of the issuer `{}`", announced.issuer);
                }
                if !announced.jwks_uri.starts_with("https://") {
                    bail!("the discovery document leads away from https");
                }
                read(&fetcher.get(&announced.jwks_uri).await?)
            }
        }
    }

    fn count<T, E>(&self, fetched: &Result<T, E>) {
        if let Self::Uri(_, fetcher) | Self::Discovery(_, fetcher) = self {
            fetcher.count(fetched);
        }
    }
}

fn read(text: &[u8]) -> anyhow::Result<KeySet> {
    Ok(KeySet::from_json(text)?)
}

/// Gets the keys of an issuer, again and again.
async fn keep(known: Arc<Known>, place: Place, refresh: Duration) {
    let issuer = &known.issuer.issuer;
    let mut retry = FIRST_RETRY;
    let mut good: Option<Instant> = None;
    loop {
        let fetched = tokio::time::timeout(PATIENCE, place.keys()).await;
        let fetched = fetched.unwrap_or_else(|_| bail_late());
        place.count(&fetched);
        let wait = match fetched {
            Ok(keys) => {
                (retry, good) = (FIRST_RETRY, Some(Instant::now()));
                known.keys.store(Some(Arc::new(keys)));
                refresh
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(issuer, error, known = good.is_some(), "the keys of a callers' issuer cannot be had");
                if good.is_some_and(|good| good.elapsed() > LIFETIME) {
                    good = None;
                    known.keys.store(None);
                }
                let wait = retry;
                retry = (retry * 2).min(LAST_RETRY);
                wait
            }
        };
        // Not all at the same time; and at once for a new key, but not as often as somebody likes to make one up.
        let next = wait.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        let asked = Instant::now();
        if tokio::time::timeout(next, known.unknown_key.notified()).await.is_ok() {
            tokio::time::sleep_until((asked + AGAIN.min(next)).max(Instant::now())).await;
        }
    }
}

fn bail_late() -> anyhow::Result<KeySet> {
    bail!("no answer within {} s", PATIENCE.as_secs())
}

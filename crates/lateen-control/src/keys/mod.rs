//! Keys by which tokens are checked: fetched from where RequestAuthentications say, kept, fetched anew now and then, and put
//! into the objects before a mesh is made of them. Proxies get them with the rest of their configuration, and ask nobody.
//!
//! While keys are not known, those of nobody stand in their place: whoever comes with a token is refused, whoever comes
//! without one is served as before. Keys that are known stay when they cannot be fetched again, for a week.

mod fetch;
mod permitted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_api::security::request_authentication::JwtRule;
use lateen_api::{Kind, Object};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::store::{Contents, Store};
pub(crate) use fetch::Fetcher;
pub use fetch::Options;

/// How long a server may take where the object does not say (Istio).
const TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure the next attempt is made so soon, then after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Keys that could not be fetched for so long are not used any more (Istio).
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `jwksUri`.
    Uri(String),
    /// Where OpenID Connect's discovery says for this issuer.
    Issuer(String),
}

impl Place {
    /// None for a rule that has its keys in it, or says nothing of any.
    fn of(rule: &JwtRule) -> Option<Self> {
        match (rule.jwks.is_empty(), rule.jwks_uri.as_str(), rule.issuer.as_str()) {
            (false, ..) | (true, "", "") => None,
            (true, "", issuer) => Some(Self::Issuer(issuer.to_owned())),
            (true, uri, _) => Some(Self::Uri(uri.to_owned())),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Issuer(issuer) => write!(f, "the issuer {issuer}"),
        }
    }
}

/// All keys that are known; immutable.
#[derive(Debug, Clone, Default)]
pub struct Ring(BTreeMap<Place, Arc<str>>);

impl Ring {
    /// A RequestAuthentication with the keys that are known for it; none for any other object, or if there are none to add.
    pub fn filled(&self, object: &Object) -> Option<Object> {
        let Object::RequestAuthentication(resource) = object else { return None };
        let keys = |rule: &JwtRule| self.0.get(&Place::of(rule)?);
        if !resource.spec.jwt_rules.iter().any(|rule| keys(rule).is_some()) {
            return None;
        }
        let mut filled = (**resource).clone();
        for rule in &mut filled.spec.jwt_rules {
            if let Some(keys) = keys(rule) {
                rule.jwks = keys.to_string();
            }
        }
        Some(Object::RequestAuthentication(Arc::new(filled)))
    }

    /// Whether other keys are known for an object than in `before`.
    pub fn differs(&self, before: &Self, object: &Object) -> bool {
        let Object::RequestAuthentication(resource) = object else { return false };
        let places = resource.spec.jwt_rules.iter().filter_map(Place::of);
        places.into_iter().any(|place| self.0.get(&place) != before.0.get(&place))
    }
}

/// What was fetched for a place; none: what was known is over.
type News = (Place, Option<Arc<str>>);

/// Starts fetching what the objects ask for.
///
/// # Errors
/// Certificates that cannot be read.
pub fn start(store: &Store, options: &Options, metrics: Metrics) -> anyhow::Result<watch::Receiver<Arc<Ring>>> {
    let fetcher = Arc::new(Fetcher::new(options, metrics)?);
    let (sender, rings) = watch::channel(Arc::default());
    tokio::spawn(supervise(store.watch(), fetcher, sender));
    Ok(rings)
}

/// The places under watch, each by a task of its own.
struct Watched {
    fetcher: Arc<Fetcher>,
    tasks: JoinSet<()>,
    places: BTreeMap<Place, (Duration, AbortHandle)>,
    news: mpsc::Sender<News>,
}

async fn supervise(
    mut contents: watch::Receiver<Arc<Contents>>,
    fetcher: Arc<Fetcher>,
    rings: watch::Sender<Arc<Ring>>,
) {
    let (news, mut arriving) = mpsc::channel(16);
    let mut watched = Watched { fetcher, tasks: JoinSet::new(), places: BTreeMap::new(), news };
    loop {
        let wanted = wanted(&contents.borrow_and_update());
        for place in watched.follow(&wanted) {
            change(&rings, place, None);
        }
        tokio::select! {
            changed = contents.changed() => if changed.is_err() { return },
            Some((place, keys)) = arriving.recv() => {
                // What nobody asks for any more may still be on its way.
                if watched.places.contains_key(&place) {
                    change(&rings, place, keys);
                }
            }
        }
    }
}

fn change(rings: &watch::Sender<Arc<Ring>>, place: Place, keys: Option<Arc<str>>) {
    rings.send_if_modified(|ring| {
        if ring.0.get(&place) == keys.as_ref() {
            return false;
        }
        let mut changed = Ring::clone(ring);
        match keys {
            Some(keys) => drop(changed.0.insert(place, keys)),
            None => drop(changed.0.remove(&place)),
        }
        *ring = Arc::new(changed);
        true
    });
}

/// The places that objects name, each with the longest time that one of them gives it.
fn wanted(contents: &Contents) -> BTreeMap<Place, Duration> {
    let mut out = BTreeMap::new();
    for object in contents.of_kind(Kind::RequestAuthentication) {
        let Object::RequestAuthentication(resource) = object else { continue };
        for rule in &resource.spec.jwt_rules {
            let Some(place) = Place::of(rule) else { continue };
            let timeout = rule.timeout.map_or(TIMEOUT, Into::into);
            let longest: &mut Duration = out.entry(place).or_default();
            *longest = (*longest).max(timeout);
        }
    }
    out
}

impl Watched {
    /// Watches these, and says which are not watched any more.
    fn follow(&mut self, wanted: &BTreeMap<Place, Duration>) -> Vec<Place> {
        while self.tasks.try_join_next().is_some() {}
        let known: BTreeSet<Place> = self.places.keys().cloned().collect();
        let gone: Vec<Place> = known.into_iter().filter(|place| !wanted.contains_key(place)).collect();
        for (_, task) in gone.iter().filter_map(|place| self.places.remove(place)) {
            task.abort();
        }
        for (place, timeout) in wanted {
            if let Some((known, task)) = self.places.get(place) {
                if known == timeout {
                    continue;
                }
                task.abort();
            }
            let task = keep(Arc::clone(&self.fetcher), place.clone(), *timeout, self.news.clone());
            self.places.insert(place.clone(), (*timeout, self.tasks.spawn(task)));
        }
        gone
    }
}

/// Fetches keys, and fetches them again.
async fn keep(fetcher: Arc<Fetcher>, place: Place, timeout: Duration, news: mpsc::Sender<News>) {
    let mut retry = FIRST_RETRY;
    let mut good: Option<Instant> = None;
    loop {
        let wait = match fetcher.keys(&place, timeout).await {
            Ok(keys) => {
                (retry, good) = (FIRST_RETRY, Some(Instant::now()));
                if news.send((place.clone(), Some(keys.into()))).await.is_err() {
                    return;
                }
                fetcher.refresh
            }
            Err(error) => {
                tracing::warn!(%place, %error, known = good.is_some(), "the keys of an issuer cannot be fetched");
                if good.is_some_and(|good| good.elapsed() > LIFETIME) {
                    good = None;
                    let _ = news.send((place.clone(), None)).await;
                }
                let wait = retry;
                retry = (retry * 2).min(LAST_RETRY);
                wait
            }
        };
        // Not all at the same time.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

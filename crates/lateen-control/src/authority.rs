//! The certificate authority in force: opened at the start, followed as its files change, taken from one root to the next.
//!
//! Files that do not fit together leave the authority as it was, with an error in the log and in the metrics: certificates go
//! on being issued by the last one that did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_api::{Kind, Object};
use lateen_identity::ca::{CaError, Parts, Rotation};
use lateen_identity::{CertificateAuthority, TrustBundle};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::Store;

/// How often files are looked at. Looking at, not waiting for events: a volume that is swapped by symbolic links, a bind mount
/// and a plain copy are all alike then.
const PERIOD: Duration = Duration::from_secs(2);

/// The Secret that holds a plugged-in authority (Istio's name for it), in the root namespace.
pub const SECRET: &str = "cacerts";

/// Where the authority is kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// In files of somebody else's.
    Folder(PathBuf),
    /// In the Secret `cacerts` of this namespace.
    Secret { store: Store, namespace: String },
    /// In files of our own.
    Own(PathBuf),
}

/// What tells whether there is something new.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// Of each file: which one, how long, and when it was written.
    Files(Vec<Option<(u64, u64, u64, SystemTime)>>),
    /// The Secret's revision.
    Revision(Option<u64>),
}

/// The authority. Cloning shares.
#[derive(Clone)]
pub struct Authority {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    trust_domain: String,
    current: watch::Sender<Arc<CertificateAuthority>>,
    /// Of what was read last; held while reading and while taking a step.
    seen: Mutex<Sign>,
    metrics: Metrics,
}

impl Place {
    /// The Secret if there is one, else a folder of our own.
    pub fn of(store: &Store, root_namespace: &str, own: PathBuf) -> Self {
        match store.contents().get(Kind::Secret, root_namespace, SECRET) {
            Some(_) => Self::Secret { store: store.clone(), namespace: root_namespace.to_owned() },
            None if own.join("ca-cert.pem").exists() => Self::Folder(own),
            None => Self::Own(own),
        }
    }

    fn sign(&self) -> Sign {
        match self {
            Self::Folder(folder) => Sign::Files(Parts::names().map(|name| file_sign(&folder.join(name))).collect()),
            Self::Own(folder) => {
                let names = ["root-cert.pem", "ca-key.pem", "next-key.pem"];
                Sign::Files(names.iter().map(|name| file_sign(&folder.join(name))).collect())
            }
            Self::Secret { store, namespace } => {
                Sign::Revision(store.contents().stored_at(Kind::Secret, namespace, SECRET).map(|it| it.revision))
            }
        }
    }

    fn load(&self, trust_domain: &str) -> Result<CertificateAuthority, CaError> {
        match self {
            Self::Folder(folder) => CertificateAuthority::plugged_in(&Parts::read(folder)?),
            Self::Own(folder) => CertificateAuthority::load_or_create(folder, trust_domain, SystemTime::now()),
            Self::Secret { store, namespace } => {
                let place = format!("Secret {namespace}/{SECRET}");
                let contents = store.contents();
                let Some(Object::Secret(secret)) = contents.get(Kind::Secret, namespace, SECRET) else {
                    return Err(CaError::File { file: place, reason: "it is gone".to_owned() });
                };
                let text = |name: &str| Some((name.to_owned(), secret.spec.value(name)?));
                CertificateAuthority::plugged_in(&Parts::new(&place, Parts::names().filter_map(text).collect()))
            }
        }
    }
}

fn file_sign(path: &Path) -> Option<(u64, u64, u64, SystemTime)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.modified().ok()?))
}

impl Authority {
    /// Reads the authority, or makes one of our own. Blocks.
    ///
    /// # Errors
    /// What is wrong with its files.
    pub fn open(place: Place, trust_domain: &str, metrics: Metrics) -> Result<Self, CaError> {
        let seen = place.sign();
        let ca = place.load(trust_domain)?;
        // Our own may just have been made.
        let seen = if matches!(place, Place::Own(_)) { place.sign() } else { seen };
        let shared = Shared {
            place,
            trust_domain: trust_domain.to_owned(),
            current: watch::Sender::new(Arc::new(ca)),
            seen: Mutex::new(seen),
            metrics,
        };
        let authority = Self { shared: Arc::new(shared) };
        authority.measure();
        Ok(authority)
    }

    pub fn current(&self) -> Arc<CertificateAuthority> {
        self.shared.current.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<CertificateAuthority>> {
        self.shared.current.subscribe()
    }

    /// Looks for changes, and takes steps when they are due, until it is time to stop.
    pub async fn follow(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            self.refresh().await;
            let due = self.current().rotation().map(|rotation| rotation.due);
            if due.is_some_and(|due| due <= SystemTime::now()) {
                match self.advance().await {
                    Ok(Rotation { stage, .. }) => {
                        tracing::warn!(?stage, "the root is being replaced, as its time is due")
                    }
                    Err(error) => tracing::error!(%error, "the root cannot be replaced, though its time is due"),
                }
            }
        }
    }

    /// Reads the authority again if it may have changed.
    pub async fn refresh(&self) {
        let mut seen = self.shared.seen.lock().await;
        let (place, trust_domain, before) = (self.shared.place.clone(), self.shared.trust_domain.clone(), seen.clone());
        let read = tokio::task::spawn_blocking(move || {
            let sign = place.sign();
            // The sign before the content: what changes in between is read again.
            (sign != before).then(|| (sign, place.load(&trust_domain)))
        });
        let Ok(Some((sign, loaded))) = read.await else { return };
        *seen = sign;
        match loaded {
            Ok(ca) => self.publish(ca),
            Err(error) => {
                self.shared.metrics.certificates.reload_failures.inc();
                tracing::error!(target: "audit", %error, "the authority's files have changed and cannot be used: it stays as it was");
            }
        }
    }

    /// Takes the next step from one root of our own to the next.
    ///
    /// # Errors
    /// A plugged-in authority, whose files somebody else has to change; files that cannot be read or written.
    pub async fn advance(&self) -> Result<Rotation, CaError> {
        let Place::Own(folder) = self.shared.place.clone() else {
            let reason = "the authority is plugged in: its root is replaced by replacing its files".to_owned();
            return Err(CaError::Authority(reason));
        };
        let mut seen = self.shared.seen.lock().await;
        let (path, trust_domain) = (folder, self.shared.trust_domain.clone());
        let step = move || CertificateAuthority::advance(&path, &trust_domain, SystemTime::now());
        let stepped = tokio::task::spawn_blocking(step).await;
        let ca = stepped.map_err(|error| CaError::Signing(error.to_string()))??;
        *seen = self.shared.place.sign();
        let rotation = ca.rotation();
        self.publish(ca);
        rotation.ok_or_else(|| CaError::Authority("it has no root of its own".to_owned()))
    }

    fn publish(&self, ca: CertificateAuthority) {
        let before = self.current();
        let without = |one: &TrustBundle, other: &TrustBundle| {
            one.roots().iter().filter(|root| !other.roots().contains(root)).count()
        };
        let (gone, new) = (without(before.roots(), ca.roots()), without(ca.roots(), before.roots()));
        let stage = ca.rotation().map(|rotation| rotation.stage);
        tracing::info!(target: "audit", ?stage, roots_new = new, roots_gone = gone, "the authority has changed");
        if gone > 0 && ca.rotation().is_none() {
            tracing::warn!(gone, "roots are trusted no more: certificates under them are refused from now on");
        }
        self.shared.current.send_replace(Arc::new(ca));
        self.measure();
    }

    fn measure(&self) {
        let ca = self.current();
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let set = |gauge: &prometheus_client::metrics::gauge::Gauge, at| {
            gauge.set(i64::try_from(seconds(at)).unwrap_or(i64::MAX));
        };
        set(&self.shared.metrics.certificates.chain_expiry, ca.not_after());
        if let Some(first) = ca.roots().ends().min() {
            set(&self.shared.metrics.certificates.root_expiry, first);
        }
    }
}

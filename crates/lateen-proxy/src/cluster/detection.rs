//! Outlier detection of clusters, shared by all workers: who is ejected, why and until when, and how that is told. Rules and
//! records are [`lateen_engine::balance::outlier`]'s.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use lateen_engine::balance::outlier::{Cause, Change, Detector, HostRecord, Verdict};
use lateen_engine::config::cluster::OutlierDetection;
use lateen_engine::config::endpoint::{Endpoint, EndpointSet, HostAddress};

use crate::telemetry::stats::{Counter, Gauge, Registry, Scope};

/// Of all clusters that are in use, by name.
#[derive(Debug, Default)]
pub(crate) struct Detections(Mutex<HashMap<Arc<str>, Weak<Detection>>>);

/// Of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ejected {
    pub cause: Cause,
    pub since: SystemTime,
    pub until: SystemTime,
}

/// A cluster's.
#[derive(Debug)]
pub(crate) struct Detection {
    cluster: Arc<str>,
    detector: Mutex<Detector>,
    /// Grows when hosts are ejected or let in: balancers look at it before they draw.
    version: AtomicU64,
    /// Whose they are, for what is told of hosts.
    workloads: Mutex<HashMap<HostAddress, Arc<str>>>,
    scope: Scope,
    stats: Registry,
    active: Gauge,
    enforced: Counter,
    overflow: Counter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole between any two calls.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Detections {
    /// The one of a cluster, made if there is none; `stat_name` is what its statistics call the cluster.
    pub(crate) fn of(&self, cluster: &Arc<str>, stat_name: Arc<str>, stats: &Registry) -> Arc<Detection> {
        let mut all = lock(&self.0);
        if let Some(known) = all.get(cluster).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, detection| detection.strong_count() > 0);
        let scope = Scope::Cluster(stat_name);
        let detection = Arc::new(Detection {
            cluster: Arc::clone(cluster),
            detector: Mutex::default(),
            version: AtomicU64::default(),
            workloads: Mutex::default(),
            active: stats.gauge(&scope, "outlier_detection.ejections_active"),
            enforced: stats.counter(&scope, "outlier_detection.ejections_enforced_total"),
            overflow: stats.counter(&scope, "outlier_detection.ejections_overflow"),
            scope,
            stats: stats.clone(),
        });
        all.insert(Arc::clone(cluster), Arc::downgrade(&detection));
        detection
    }

    /// The ejected hosts of all clusters, with whose they are, in the order of names.
    pub(crate) fn all_ejected(&self) -> Vec<(Arc<str>, HostAddress, Arc<str>, Ejected)> {
        let detections: Vec<_> = lock(&self.0).values().filter_map(Weak::upgrade).collect();
        let of = |detection: Arc<Detection>| {
            let workloads = lock(&detection.workloads).clone();
            let ejected = detection.ejected().into_iter();
            let with_workload = ejected.map(move |(host, ejected)| {
                let workload = workloads.get(&host).cloned().unwrap_or_default();
                (Arc::clone(&detection.cluster), host, workload, ejected)
            });
            with_workload.collect::<Vec<_>>()
        };
        let mut all: Vec<_> = detections.into_iter().flat_map(of).collect();
        all.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        all
    }

    /// The ejected hosts of a cluster.
    pub(crate) fn ejected(&self, cluster: &str) -> HashMap<HostAddress, Ejected> {
        let detection = lock(&self.0).get(cluster).and_then(Weak::upgrade);
        detection.map(|detection| detection.ejected()).unwrap_or_default()
    }
}

impl Detection {
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes the hosts that there are now.
    pub(crate) fn follow(&self, set: &EndpointSet) {
        let mut detector = lock(&self.detector);
        detector.follow(set.endpoints().map(|host| &host.address));
        let workload = |host: &Arc<Endpoint>| (host.address.clone(), Arc::clone(&host.workload));
        *lock(&self.workloads) = set.endpoints().map(workload).collect();
        self.changed(&detector);
    }

    pub(crate) fn record(&self, host: &HostAddress) -> Option<Arc<HostRecord>> {
        lock(&self.detector).record(host)
    }

    /// A host has reached a limit.
    pub(crate) fn report(
        &self,
        host: &HostAddress,
        cause: Cause,
        rule: &OutlierDetection,
        random: &mut impl FnMut() -> u64,
    ) {
        let mut detector = lock(&self.detector);
        let verdict = detector.report(host, cause, rule, Instant::now(), random);
        if let Some(verdict) = verdict {
            self.tell(host, Change::Detected(cause, verdict));
            self.changed(&detector);
        }
    }

    /// Lets in whose time is over, and judges the interval that has passed. Each worker calls it; it is done once.
    pub(crate) fn tick(&self, rule: &OutlierDetection, random: &mut impl FnMut() -> u64) {
        let mut detector = lock(&self.detector);
        let changes = detector.tick(rule, Instant::now(), random);
        if !changes.is_empty() {
            changes.into_iter().for_each(|(host, change)| self.tell(&host, change));
            self.changed(&detector);
        }
    }

    fn changed(&self, detector: &Detector) {
        self.active.set(detector.ejected().count() as u64);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// An event: the log tells who, why and for how long; so do counters and, while it lasts, the admin port.
    fn tell(&self, host: &HostAddress, change: Change) {
        let cluster = &self.cluster;
        let workload = lock(&self.workloads).get(host).cloned().unwrap_or_default();
        let mut parts = workload.split(';');
        let (workload, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (cause, verdict) = match change {
            Change::LetIn => {
                tracing::info!(%cluster, %host, workload, namespace, "let in again");
                return;
            }
            Change::Detected(cause, verdict) => (cause.as_str(), verdict),
        };
        self.count(&format!("ejections_detected_{cause}"));
        match verdict {
            Verdict::Ejected(time_out) => {
                let for_seconds = time_out.as_secs_f64();
                tracing::warn!(%cluster, %host, workload, namespace, cause, for_seconds, "ejected");
                self.enforced.inc();
                self.count(&format!("ejections_enforced_{cause}"));
                let tags =
                    [("cluster", &**cluster), ("workload", workload), ("namespace", namespace), ("cause", cause)];
                let tags = tags.map(|(name, value)| (Arc::from(name), Box::from(value)));
                self.stats.tagged_counter(&"lateen.ejections_total".into(), &Arc::from(tags)).metric.inc();
            }
            Verdict::NotEnforced => {
                tracing::info!(%cluster, %host, workload, namespace, cause, "would be ejected if that were enforced");
            }
            Verdict::TooMany { ejected, all } => {
                self.overflow.inc();
                tracing::warn!(%cluster, %host, workload, namespace, cause, ejected, all,
                    "has failed too often, and is not ejected: more than may be would be");
            }
        }
    }

    /// Counters of causes are looked up when they count: that is rare, and most clusters never have one.
    fn count(&self, name: &str) {
        self.stats.counter(&self.scope, format!("outlier_detection.{name}")).inc();
    }

    fn ejected(&self) -> HashMap<HostAddress, Ejected> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let detector = lock(&self.detector);
        let ejected = detector.ejected().map(|(host, ejection)| {
            let since = wall - now.duration_since(ejection.since);
            (host.clone(), Ejected { cause: ejection.cause, since, until: since + ejection.time_out })
        });
        ejected.collect()
    }
}

impl Drop for Detection {
    fn drop(&mut self) {
        self.active.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_one_while_anybody_uses_it() {
        let (all, stats, cluster) = (Detections::default(), Registry::default(), Arc::<str>::from("up"));
        let of = || all.of(&cluster, Arc::clone(&cluster), &stats);
        let (first, again) = (of(), of());
        assert!(Arc::ptr_eq(&first, &again));
        first.active.set(3);
        drop((first, again));
        assert!(all.ejected("up").is_empty());
        assert_eq!(of().active.get(), 0);
    }
}

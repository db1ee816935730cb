//! Which hosts are ejected, why and until when: one list for all workers, of which gauges and the admin port tell. Each
//! worker ejects by what it sees itself; a host counts as ejected while any of them has it out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use lateen_engine::balance::outlier::Cause;
use lateen_engine::config::endpoint::HostAddress;

use crate::telemetry::stats::Gauge;

/// Shared by all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ejections(Arc<Mutex<Clusters>>);

type Clusters = HashMap<Arc<str>, HashMap<HostAddress, Entry>>;

#[derive(Debug)]
struct Entry {
    ejected: Ejected,
    /// How many workers have it out.
    workers: usize,
}

/// Of a host, by the worker that ejected it last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ejected {
    pub cause: Cause,
    pub until: SystemTime,
}

/// A worker has a host out, until this is dropped.
#[derive(Debug)]
pub(crate) struct Out {
    list: Ejections,
    cluster: Arc<str>,
    host: HostAddress,
    active: Gauge,
}

impl Ejections {
    fn lock(&self) -> MutexGuard<'_, Clusters> {
        // A map is whole between any two calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a host; `active` counts the ejected hosts of its cluster.
    pub(crate) fn add(&self, cluster: &Arc<str>, host: &HostAddress, ejected: Ejected, active: &Gauge) -> Out {
        let mut clusters = self.lock();
        let hosts = clusters.entry(Arc::clone(cluster)).or_default();
        let entry = hosts.entry(host.clone()).or_insert(Entry { ejected, workers: 0 });
        entry.ejected = ejected;
        entry.workers += 1;
        active.set(hosts.len() as u64);
        Out { list: self.clone(), cluster: Arc::clone(cluster), host: host.clone(), active: active.clone() }
    }

    /// The ejected hosts of a cluster.
    pub(crate) fn of(&self, cluster: &str) -> HashMap<HostAddress, Ejected> {
        let clusters = self.lock();
        let hosts = clusters.get(cluster).into_iter().flatten();
        hosts.map(|(host, entry)| (host.clone(), entry.ejected)).collect()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let mut clusters = self.list.lock();
        let Some(hosts) = clusters.get_mut(&self.cluster) else { return };
        if let Some(entry) = hosts.get_mut(&self.host) {
            entry.workers -= 1;
            if entry.workers == 0 {
                hosts.remove(&self.host);
            }
        }
        self.active.set(hosts.len() as u64);
        if hosts.is_empty() {
            clusters.remove(&self.cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_out_while_any_worker_has_it_out() {
        let (list, active, cluster) = (Ejections::default(), Gauge::default(), Arc::<str>::from("up"));
        let host = |port| HostAddress::Socket(([127, 0, 0, 1], port).into());
        let ejected = Ejected { cause: Cause::Consecutive5xx, until: SystemTime::now() };
        let first = list.add(&cluster, &host(1), ejected, &active);
        let again = list.add(&cluster, &host(1), ejected, &active);
        let other = list.add(&cluster, &host(2), ejected, &active);
        assert_eq!((active.get(), list.of("up").len(), list.of("down").len()), (2, 2, 0));
        drop(first);
        assert_eq!(active.get(), 2);
        drop(again);
        assert_eq!(active.get(), 1);
        drop(other);
        assert_eq!(active.get(), 0);
        assert!(list.lock().is_empty());
    }
}

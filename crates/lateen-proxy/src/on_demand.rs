//! Virtual hosts that come when requests need them (`vhds`, `envoy.filters.http.on_demand`): which have been asked for, and
//! who waits. Workers ask, the control thread follows; nobody comes here for a host that is there.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

/// So many are kept; then the one that was asked for first goes, and is asked for again should a request need it.
const HOSTS: usize = 1024;

/// So many requests may wait at a time; others get no answer.
const WAITING: usize = 4096;

/// How long a request waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of one proxy.
#[derive(Debug, Default)]
pub(crate) struct OnDemand {
    asked: Mutex<Asked>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Asked {
    /// By name: `<route table>/<host>`.
    hosts: HashMap<Arc<str>, Host>,
    /// The names, in the order in which they were asked for.
    order: VecDeque<Arc<str>>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Host {
    /// The server has said what it is, or that there is none.
    answered: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

/// There was no answer in time, or no room to wait for one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl OnDemand {
    /// Asks for a virtual host, and waits until every worker has what the server says of it.
    pub(crate) async fn ask(&self, name: String) -> Result<(), Unanswered> {
        let Some(answer) = self.join(name)? else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Unanswered),
        }
    }

    /// What comes when it is answered; nothing if it has been.
    fn join(&self, name: String) -> Result<Option<oneshot::Receiver<()>>, Unanswered> {
        let mut asked = self.lock();
        let Asked { hosts, order, waiting } = &mut *asked;
        // Requests that have left wait no more.
        if *waiting >= WAITING {
            hosts.values_mut().for_each(|host| host.waiting.retain(|answer| !answer.is_closed()));
            *waiting = hosts.values().map(|host| host.waiting.len()).sum();
        }
        let is_new = !hosts.contains_key(name.as_str());
        let name: Arc<str> = name.into();
        let host = hosts.entry(Arc::clone(&name)).or_default();
        if host.answered {
            return Ok(None);
        }
        if *waiting >= WAITING {
            // It is asked for all the same: a later request will find it.
            return Err(Unanswered);
        }
        let (answer, answered) = oneshot::channel();
        host.waiting.push(answer);
        *waiting += 1;
        if is_new {
            order.push_back(name);
            if order.len() > HOSTS
                && let Some(oldest) = order.pop_front().and_then(|oldest| hosts.remove(&oldest))
            {
                *waiting -= oldest.waiting.len();
            }
            self.changed.notify_one();
        }
        Ok(Some(answered))
    }

    /// Comes back when other hosts are asked for than before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The names to subscribe to.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.lock().order.iter().cloned().collect()
    }

    /// What the server has said of these is in force on every worker.
    pub(crate) fn answer<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut asked = self.lock();
        for name in names {
            let Some(host) = asked.hosts.get_mut(name) else { continue };
            host.answered = true;
            let waiting = std::mem::take(&mut host.waiting);
            asked.waiting -= waiting.len();
            for answer in waiting {
                // Whoever has left meanwhile needs none.
                let _ = answer.send(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        // No panic can leave it half changed.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(hosts: &OnDemand, name: &str) -> Option<oneshot::Receiver<()>> {
        hosts.join(name.to_owned()).expect("there is room")
    }

    #[test]
    fn whoever_asks_for_the_same_waits_for_one_answer() {
        let hosts = OnDemand::default();
        let (mut first, mut second) = (ask(&hosts, "80/a").expect("new"), ask(&hosts, "80/a").expect("not there yet"));
        assert_eq!(hosts.names(), BTreeSet::from(["80/a".into()]));
        hosts.answer(["80/b"].into_iter());
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        hosts.answer(["80/a"].into_iter());
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(()), Ok(())));
        assert!(ask(&hosts, "80/a").is_none(), "it has been answered");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let hosts = OnDemand::default();
        let mut first = ask(&hosts, "80/0").expect("new");
        for number in 1..=HOSTS {
            ask(&hosts, &format!("80/{number}"));
        }
        assert_eq!(hosts.names().len(), HOSTS);
        assert!(!hosts.names().contains("80/0"));
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed), "it is told that no answer comes");
        assert_eq!(hosts.lock().waiting, HOSTS);
    }

    #[test]
    fn only_so_many_wait_and_those_who_have_left_do_not_count() {
        let hosts = OnDemand::default();
        let mut waiting: Vec<_> = (0..WAITING).map(|_| ask(&hosts, "80/a").expect("not there yet")).collect();
        assert_eq!(hosts.join("80/a".to_owned()).err(), Some(Unanswered));
        waiting.truncate(10);
        assert!(hosts.join("80/a".to_owned()).is_ok());
        assert_eq!(hosts.lock().waiting, 11);
    }

    #[tokio::test]
    async fn the_control_thread_hears_of_what_was_asked_for_while_it_was_busy() {
        let hosts = OnDemand::default();
        let answer = ask(&hosts, "80/a").expect("new");
        hosts.changed().await;
        hosts.answer(hosts.names().iter().map(|name| &**name));
        assert_eq!(answer.await, Ok(()));
    }
}

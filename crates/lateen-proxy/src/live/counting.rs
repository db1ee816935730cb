//! What has been added to series since it was told last.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_live::{BUCKETS, Counted, Counts, LabelSet, Measured, Of, Told};

use crate::telemetry::series::Tags;
use crate::telemetry::stats::{Metric, Registry};

/// Sets of labels that are told; what comes beyond them is counted as dropped.
const MOST_SETS: usize = 4_096;

/// Series that one message tells of: who reads it keeps as much memory as the largest needed.
const MOST_IN_MESSAGE: usize = 200;

/// Of the metrics that were asked for.
#[derive(Default)]
pub(super) struct Counting {
    asked: Counts,
    /// Of the registry, when its series were looked through last.
    generation: Option<u64>,
    /// By address of their numbers, which is theirs alone while they are held here, and index of the metric.
    series: HashMap<(usize, usize), Followed>,
    ids: HashMap<Arc<[String]>, u32>,
    sets: HashMap<u32, Set>,
    /// No id is used twice.
    next: u32,
    forgotten: Vec<u32>,
}

/// Labels as they were asked for.
struct Set {
    values: Arc<[String]>,
    is_told: bool,
    is_used: bool,
}

struct Followed {
    metric: Metric,
    /// None: there was no room for its labels.
    set: Option<u32>,
    last: Last,
}

/// What there was when it was told last.
enum Last {
    Count(u64),
    Buckets(Box<[u64; BUCKETS.len() + 1]>),
}

impl Counting {
    /// A stream begins, which has been told nothing. `from_now`: what has been counted already is not told.
    pub(super) fn begin(&mut self, registry: &Registry, from_now: bool) {
        self.sets.values_mut().for_each(|set| set.is_told = false);
        self.forgotten.clear();
        if from_now {
            self.skip(registry);
        }
    }

    /// What is wanted. What was counted before something else was wanted is not told again.
    pub(super) fn ask(&mut self, asked: Counts, registry: &Registry) {
        if asked == self.asked {
            return;
        }
        let is_first = self.asked.metrics.is_empty();
        let told = self.sets.iter().filter(|(_, set)| set.is_told).map(|(id, _)| *id);
        let forgotten = std::mem::take(&mut self.forgotten).into_iter().chain(told).collect();
        *self = Self { asked, next: self.next, forgotten, ..Self::default() };
        if !is_first {
            self.skip(registry);
        }
    }

    /// Takes what has been added for told. No set has been told yet.
    fn skip(&mut self, registry: &Registry) {
        let forgotten = std::mem::take(&mut self.forgotten);
        self.added(registry);
        self.forgotten = forgotten;
        self.sets.values_mut().for_each(|set| set.is_told = false);
    }

    /// What has been added since the last time.
    pub(super) fn added(&mut self, registry: &Registry) -> Vec<Told> {
        if self.generation != Some(registry.generation()) {
            self.look_through(registry);
        }
        let mut messages = Messages::default();
        for (&(_, index), followed) in &mut self.series {
            let metric = u32::try_from(index).unwrap_or(u32::MAX);
            match (&mut followed.last, &followed.metric) {
                (Last::Buckets(last), Metric::Histogram(histogram)) => {
                    let now = histogram.counts();
                    let buckets: Vec<usize> = (0..now.len()).filter(|bucket| now[*bucket] != last[*bucket]).collect();
                    if buckets.is_empty() {
                        continue;
                    }
                    let added: Vec<u64> =
                        buckets.iter().map(|bucket| now[*bucket].wrapping_sub(last[*bucket])).collect();
                    **last = now;
                    match followed.set {
                        None => messages.last().dropped += added.iter().sum::<u64>(),
                        Some(set) => {
                            let buckets = buckets.into_iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect();
                            messages.next(set, &mut self.sets).measured.push(Measured { metric, set, buckets, added });
                        }
                    }
                }
                (Last::Count(last), counted) => {
                    let now = counted.total();
                    let added = now.wrapping_sub(*last);
                    if added == 0 {
                        continue;
                    }
                    *last = now;
                    match followed.set {
                        None => messages.last().dropped += added,
                        Some(set) => {
                            messages.next(set, &mut self.sets).counted.push(Counted { metric, set, added });
                        }
                    }
                }
                (Last::Buckets(_), _) => {}
            }
        }
        if !self.forgotten.is_empty() {
            messages.last().forgotten = std::mem::take(&mut self.forgotten);
        }
        messages.all
    }

    /// Takes in series that are new, and lets go of those that are gone.
    fn look_through(&mut self, registry: &Registry) {
        let names: HashMap<&str, Vec<usize>> = self.asked.metrics.iter().enumerate().fold(
            HashMap::new(),
            |mut names: HashMap<&str, Vec<usize>>, (index, metric)| {
                names.entry(&metric.name).or_default().push(index);
                names
            },
        );
        let (generation, found) = registry.series(|name| names.contains_key(name));
        self.sets.values_mut().for_each(|set| set.is_used = false);
        let mut before = std::mem::take(&mut self.series);
        for (name, tags, metric) in found {
            for &index in names.get(&*name).into_iter().flatten() {
                let key = (metric.address(), index);
                let mut followed = before.remove(&key).unwrap_or_else(|| {
                    let is_measured = self.asked.metrics[index].of() == Of::Buckets;
                    let last = if is_measured { Last::Buckets(Box::default()) } else { Last::Count(0) };
                    Followed { metric: metric.clone(), set: None, last }
                });
                followed.set = match followed.set {
                    Some(set) => Some(set),
                    None => set_of(&tags, &self.asked.labels, &mut self.ids, &mut self.sets, &mut self.next),
                };
                if let Some(set) = followed.set.and_then(|set| self.sets.get_mut(&set)) {
                    set.is_used = true;
                }
                self.series.insert(key, followed);
            }
        }
        let (ids, forgotten) = (&mut self.ids, &mut self.forgotten);
        self.sets.retain(|id, set| {
            if !set.is_used {
                ids.remove(&set.values);
                if set.is_told {
                    forgotten.push(*id);
                }
            }
            set.is_used
        });
        self.generation = Some(generation);
    }
}

/// The set that a series' tags come to, if there is room for it.
fn set_of(
    tags: &Tags,
    labels: &[String],
    ids: &mut HashMap<Arc<[String]>, u32>,
    sets: &mut HashMap<u32, Set>,
    next: &mut u32,
) -> Option<u32> {
    let value = |label: &String| tags.iter().find(|(name, _)| **name == **label).map(|(_, value)| value.to_string());
    let values: Arc<[String]> = labels.iter().map(|label| value(label).unwrap_or_default()).collect();
    if let Some(id) = ids.get(&values) {
        return Some(*id);
    }
    if sets.len() >= MOST_SETS {
        return None;
    }
    *next = next.checked_add(1)?;
    ids.insert(Arc::clone(&values), *next);
    sets.insert(*next, Set { values, is_told: false, is_used: true });
    Some(*next)
}

/// As many as are needed.
#[derive(Default)]
struct Messages {
    all: Vec<Told>,
    in_last: usize,
}

impl Messages {
    fn last(&mut self) -> &mut Told {
        if self.all.is_empty() || self.in_last >= MOST_IN_MESSAGE {
            self.all.push(Told::default());
            self.in_last = 0;
        }
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// The message for another number, in which its set is told if it has not been.
    fn next(&mut self, id: u32, sets: &mut HashMap<u32, Set>) -> &mut Told {
        let told = self.last();
        if let Some(set) = sets.get_mut(&id).filter(|set| !set.is_told) {
            set.is_told = true;
            told.sets.push(LabelSet { id, values: set.values.to_vec() });
        }
        self.in_last += 1;
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

#[cfg(test)]
mod tests {
    use lateen_live::Metric as Asked;

    use super::*;

    fn counts() -> Counts {
        let metric = |name: &str, of: Of| Asked { name: name.to_owned(), of: of.into() };
        Counts {
            metrics: vec![
                metric("requests", Of::Count),
                metric("milliseconds", Of::Buckets),
                metric("milliseconds", Of::Sum),
            ],
            labels: vec!["to".to_owned(), "missing".to_owned()],
        }
    }

    fn tags(to: &str, code: &str) -> Tags {
        [("to", to), ("code", code)].map(|(name, value)| (Arc::from(name), Box::from(value))).into()
    }

    fn name(name: &str) -> Arc<str> {
        format!("istiocustom.{name}").into()
    }

    /// Set, metric and what was added, in order.
    fn told(messages: &[Told]) -> Vec<(String, u32, Vec<u64>)> {
        let mut sets = HashMap::new();
        let mut all = Vec::new();
        for message in messages {
            sets.extend(message.sets.iter().map(|set| (set.id, set.values.join("/"))));
            let counted = message.counted.iter().map(|it| (it.set, it.metric, vec![it.added]));
            let measured = message.measured.iter().map(|it| (it.set, it.metric, it.added.clone()));
            all.extend(counted.chain(measured).map(|(set, metric, added)| {
                (sets.get(&set).cloned().unwrap_or_else(|| set.to_string()), metric, added)
            }));
        }
        all.sort();
        all
    }

    #[test]
    fn what_is_added_is_told_once_and_sets_are_written_out_once() {
        let registry = Registry::default();
        let requests = registry.tagged_counter(&name("requests"), &tags("a", "200")).metric;
        registry.tagged_counter(&name("requests"), &tags("a", "500")).metric.add(2);
        let took = registry.tagged_histogram(&name("milliseconds"), &tags("b", "200")).metric;
        requests.add(5);
        took.record(0.7);
        took.record(0.8);
        took.record(70.0);
        let mut counting = Counting::default();
        counting.ask(counts(), &registry);
        counting.begin(&registry, false);
        let first = counting.added(&registry);
        let expected = [("a/", 0, vec![2]), ("a/", 0, vec![5]), ("b/", 1, vec![2, 1]), ("b/", 2, vec![71])];
        assert_eq!(told(&first), expected.map(|(set, metric, added)| (set.to_owned(), metric, added)));
        assert_eq!(first[0].sets.len(), 2, "series that agree in the labels that were asked for are one");
        assert!(counting.added(&registry).is_empty());
        requests.inc();
        let second = counting.added(&registry);
        assert!(second[0].sets.is_empty());
        assert_eq!(second[0].counted.iter().map(|it| it.added).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn another_stream_hears_of_sets_anew_and_of_old_numbers_only_if_it_was_quick() {
        let registry = Registry::default();
        let requests = registry.tagged_counter(&name("requests"), &tags("a", "200")).metric;
        let mut counting = Counting::default();
        requests.add(7);
        counting.ask(counts(), &registry);
        counting.begin(&registry, true);
        assert!(counting.added(&registry).is_empty(), "it was long ago");
        requests.add(2);
        counting.ask(counts(), &registry);
        counting.begin(&registry, false);
        assert_eq!(told(&counting.added(&registry)), [("a/".to_owned(), 0, vec![2])]);
        requests.add(3);
        counting.ask(counts(), &registry);
        counting.begin(&registry, true);
        assert!(counting.added(&registry).is_empty());
        requests.add(4);
        assert_eq!(told(&counting.added(&registry)), [("a/".to_owned(), 0, vec![4])]);
        // Something else is wanted on the same stream: sets are called by other numbers then.
        let other = Counts { labels: vec!["code".to_owned()], ..counts() };
        counting.ask(other.clone(), &registry);
        requests.add(5);
        let messages = counting.added(&registry);
        assert_eq!(told(&messages), [("200".to_owned(), 0, vec![5])]);
        assert_eq!(messages[0].forgotten.len(), 1);
        counting.ask(other, &registry);
        requests.add(6);
        assert!(counting.added(&registry)[0].sets.is_empty(), "nothing has changed");
    }

    #[test]
    fn what_has_no_room_is_counted_and_no_message_is_large() {
        let registry = Registry::default();
        for peer in 0..MOST_SETS + 3 {
            registry.tagged_counter(&name("requests"), &tags(&format!("peer {peer}"), "200")).metric.add(10);
        }
        let mut counting = Counting::default();
        counting.ask(counts(), &registry);
        counting.begin(&registry, false);
        let messages = counting.added(&registry);
        assert_eq!(messages.iter().map(|it| it.dropped).sum::<u64>(), 30);
        assert_eq!(messages.iter().map(|it| it.counted.len()).sum::<usize>(), MOST_SETS);
        assert!(messages.iter().all(|it| it.counted.len() <= MOST_IN_MESSAGE && it.sets.len() <= MOST_IN_MESSAGE));
    }
}

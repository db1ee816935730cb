//! The stats access logger on one worker: each record adds to counters and histograms that have its tags.
//!
//! Tags are made of a few things that differ from record to record. Records that agree in all of those have the same tags, so
//! that tags are filled in, and handles looked up, once for each combination; after that a record costs one look-up for all
//! statistics that share their tags.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_engine::config::stats_log::{Amount, Group, Input, PERCENT_SCALE, StatsLog};

use super::operators;
use super::series::{Series, Tags};
use super::stats::{Counter, Histogram, Registry};
use super::stream_info::StreamInfo;

/// How often unused series are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Tag values come from clients: beyond so many sets of them, further ones are counted together as `overflow`. With Istio's
/// labels and histograms a set is 60 kB of a scrape.
const MOST_SERIES: usize = 4_000;

#[derive(Debug)]
pub(crate) struct StatsLogger {
    registry: Registry,
    groups: RefCell<Vec<Known>>,
    /// Where a record's key is written.
    key: RefCell<Vec<u8>>,
}

type Map = foldhash::HashMap<Box<[u8]>, Rc<Handles>>;

/// A group's handles.
#[derive(Debug)]
struct Known {
    /// By what the tags are made of; forgotten when there is too much of it.
    by_inputs: Map,
    /// By the tags' values, each ended by a zero byte.
    by_values: Map,
    /// When those that nobody uses were forgotten last.
    swept: Instant,
}

#[derive(Debug)]
struct Handles {
    counters: Vec<Series<Counter>>,
    histograms: Vec<Series<Histogram>>,
}

impl StatsLogger {
    pub(crate) fn new(log: &StatsLog, registry: Registry) -> Self {
        let new = |_| Known { by_inputs: Map::default(), by_values: Map::default(), swept: Instant::now() };
        let groups = log.groups.iter().map(new).collect();
        Self { registry, groups: RefCell::new(groups), key: RefCell::default() }
    }

    /// `log`: the one that this was made for.
    pub(crate) fn log(&self, log: &StatsLog, info: &StreamInfo) {
        let mut key = self.key.borrow_mut();
        let now = info.started + info.duration;
        for (group, known) in log.groups.iter().zip(self.groups.borrow_mut().iter_mut()) {
            key.clear();
            for input in &group.inputs {
                append(input, info, &mut key);
                key.push(0);
            }
            match known.by_inputs.get(&key[..]).filter(|handles| handles.are_known(now)) {
                Some(handles) => handles.record(group, info),
                None => self.find(group, known, &key, (info, now)).record(group, info),
            }
        }
    }

    /// The handles for the tags of a record, found by them from now on.
    fn find(&self, group: &Group, known: &mut Known, key: &[u8], (info, now): (&StreamInfo, Instant)) -> Rc<Handles> {
        let mut values = Vec::new();
        for (_, format) in &group.tags {
            // Envoy leaves out what is not there, where a log line has a hyphen.
            format.write(&mut values, |operator, values| {
                operators::append(operator, info, values);
            });
            values.push(0);
        }
        let is_stale = known.by_values.get(&values[..]).is_some_and(|handles| !handles.are_known(now));
        if is_stale || now.saturating_duration_since(known.swept) >= SWEEP {
            known.swept = now;
            known.by_values.retain(|_, handles| !handles.are_stale(now));
        }
        if known.by_values.len() >= MOST_SERIES && !known.by_values.contains_key(&values[..]) {
            values.clear();
            group.tags.iter().for_each(|_| values.extend_from_slice(b"overflow\0"));
        }
        let handles = match known.by_values.get(&values[..]) {
            Some(handles) => Rc::clone(handles),
            None => {
                let handles = Rc::new(self.register(group, &values));
                known.by_values.insert(values.into(), Rc::clone(&handles));
                handles
            }
        };
        if known.by_inputs.len() >= MOST_SERIES {
            known.by_inputs.clear();
        }
        known.by_inputs.insert(key.into(), Rc::clone(&handles));
        handles
    }

    fn register(&self, group: &Group, values: &[u8]) -> Handles {
        let texts = values.split(|byte| *byte == 0).map(|value| String::from_utf8_lossy(value).into());
        let tags: Tags = group.tags.iter().map(|(name, _)| Arc::clone(name)).zip(texts).collect();
        let counter = |name| self.registry.tagged_counter(name, &tags);
        let histogram = |name| self.registry.tagged_histogram(name, &tags);
        Handles {
            counters: group.counters.iter().map(|metric| counter(&metric.name)).collect(),
            histograms: group.histograms.iter().map(|metric| histogram(&metric.name)).collect(),
        }
    }
}

fn append(input: &Input, info: &StreamInfo, key: &mut Vec<u8>) {
    match input {
        Input::Operator(operator) => {
            operators::append(operator, info, key);
        }
        Input::Attribute(path) => info.append(path, key),
    }
}

impl Handles {
    /// Whether nothing has been forgotten that these add to, and nothing will be while they are used.
    fn are_known(&self, now: Instant) -> bool {
        self.counters.iter().all(|series| series.is_known(now))
            && self.histograms.iter().all(|series| series.is_known(now))
    }

    fn are_stale(&self, now: Instant) -> bool {
        self.counters.iter().any(|series| series.is_stale(now))
            || self.histograms.iter().any(|series| series.is_stale(now))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters take whole numbers; casts saturate"
    )]
    fn record(&self, group: &Group, info: &StreamInfo) {
        for (metric, counter) in group.counters.iter().zip(&self.counters) {
            if let Some(amount) = amount(&metric.amount, info) {
                counter.metric.add(amount as u64);
            }
        }
        for (metric, histogram) in group.histograms.iter().zip(&self.histograms) {
            if let Some(amount) = amount(&metric.amount, info) {
                histogram.metric.record(amount);
            }
        }
    }
}

/// What a record adds; none where its operator stands for nothing, or for no number.
fn amount(amount: &Amount, info: &StreamInfo) -> Option<f64> {
    match amount {
        #[expect(clippy::cast_precision_loss, reason = "nobody counts requests by 2^53")]
        Amount::Fixed(fixed) => Some(*fixed as f64),
        Amount::Of(operator) => operators::amount(operator, info),
        Amount::ShareOf(operator) => Some(operators::amount(operator, info)? * PERCENT_SCALE),
    }
}

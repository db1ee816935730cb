//! The stats access logger on one worker: each record adds to counters and histograms that have its tags. Handles are looked
//! up once for each set of tag values, and found by those values from then on.

use std::cell::RefCell;
use std::sync::Arc;

use lateen_engine::config::stats_log::{Amount, Group, PERCENT_SCALE, StatsLog};

use super::operators;
use super::stats::{Counter, Histogram, Registry, Tags};
use super::stream_info::StreamInfo;

/// Tag values come from clients: beyond so many sets of them, further ones are counted together as `overflow`.
const MOST_SERIES: usize = 10_000;

#[derive(Debug)]
pub(crate) struct StatsLogger {
    log: Arc<StatsLog>,
    registry: Registry,
    groups: RefCell<Vec<Known>>,
    /// Where a record's tag values are written.
    values: RefCell<Vec<u8>>,
}

/// A group's handles by tag values: each ended by a zero byte.
type Known = foldhash::HashMap<Box<[u8]>, Handles>;

#[derive(Debug)]
struct Handles {
    counters: Vec<Counter>,
    histograms: Vec<Histogram>,
}

impl StatsLogger {
    pub(crate) fn new(log: Arc<StatsLog>, registry: Registry) -> Self {
        let groups = log.groups.iter().map(|_| Known::default()).collect();
        Self { log, registry, groups: RefCell::new(groups), values: RefCell::default() }
    }

    pub(crate) fn log(&self, info: &StreamInfo) {
        let mut values = self.values.borrow_mut();
        for (group, known) in self.log.groups.iter().zip(self.groups.borrow_mut().iter_mut()) {
            values.clear();
            for (_, format) in &group.tags {
                // Envoy leaves out what is not there, where a log line has a hyphen.
                format.write(&mut values, |operator, values| {
                    operators::append(operator, info, values);
                });
                values.push(0);
            }
            self.handles(group, known, &mut values).record(group, info);
        }
    }

    fn handles<'a>(&self, group: &Group, known: &'a mut Known, values: &mut Vec<u8>) -> &'a Handles {
        if known.len() >= MOST_SERIES && !known.contains_key(&values[..]) {
            values.clear();
            group.tags.iter().for_each(|_| values.extend_from_slice(b"overflow\0"));
        }
        // Looked up twice only when it is new.
        if !known.contains_key(&values[..]) {
            let texts = values.split(|byte| *byte == 0).map(|value| String::from_utf8_lossy(value).into());
            let tags: Tags = group.tags.iter().map(|(name, _)| Arc::clone(name)).zip(texts).collect();
            let handles = Handles {
                counters: group
                    .counters
                    .iter()
                    .map(|metric| self.registry.tagged_counter(&metric.name, &tags))
                    .collect(),
                histograms: group
                    .histograms
                    .iter()
                    .map(|metric| self.registry.tagged_histogram(&metric.name, &tags))
                    .collect(),
            };
            known.insert(values.as_slice().into(), handles);
        }
        &known[&values[..]]
    }
}

impl Handles {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters take whole numbers; casts saturate"
    )]
    fn record(&self, group: &Group, info: &StreamInfo) {
        for (metric, counter) in group.counters.iter().zip(&self.counters) {
            if let Some(amount) = amount(&metric.amount, info) {
                counter.add(amount as u64);
            }
        }
        for (metric, histogram) in group.histograms.iter().zip(&self.histograms) {
            if let Some(amount) = amount(&metric.amount, info) {
                histogram.record(amount);
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

//! Envoy's stats access logger (`access_loggers.stats.v3`): numbers made of each request's record, with tags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as proto;
use envoy_types::pb::google::protobuf::Any;
use lateen_cel::{Attribute, Path};
use proto::config::{Histogram as ProtoHistogram, Stat, histogram::Unit};

use super::error::{At, refuse};
use super::scalar::open;
use crate::route::format::{Format, Operator, Piece};

#[derive(Debug, PartialEq)]
pub struct StatsLog {
    /// The message that this was made of.
    source: Arc<[u8]>,
    /// Stats with the same tags, which are then filled in once for all of them.
    pub groups: Vec<Group>,
}

#[derive(Debug, PartialEq)]
pub struct Group {
    /// Names and values, in their order.
    pub tags: Vec<(Arc<str>, Format)>,
    /// What the values are made of and may differ from record to record: records that agree in all of it have the same values.
    pub inputs: Vec<Input>,
    pub counters: Vec<Metric>,
    pub histograms: Vec<Metric>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Operator(Operator),
    Attribute(Path),
}

#[derive(Debug, PartialEq)]
pub struct Metric {
    /// With its prefix: `istio.requests_total`.
    pub name: Arc<str>,
    pub amount: Amount,
}

/// What one request adds.
#[derive(Debug, PartialEq)]
pub enum Amount {
    Fixed(u64),
    /// An operator that stands for a number; without one nothing is recorded.
    Of(Operator),
    /// The same, where 1.0 is 100 %: Envoy keeps it in millionths.
    ShareOf(Operator),
}

/// Those that have been read: metrics have most of their labels in common, and expressions take their time to be compiled.
type Formats<'a> = HashMap<&'a str, Format>;

/// Envoy's `Histogram::PercentScale`.
pub const PERCENT_SCALE: f64 = 1_000_000.0;

/// Those that are in use. Many listeners have the same one, which is large.
static KNOWN: Mutex<Vec<Weak<StatsLog>>> = Mutex::new(Vec::new());

impl StatsLog {
    /// The same for the same message, as long as anybody has it.
    pub(super) fn shared(any: &Any, at: &At) -> Option<Arc<Self>> {
        let find = |known: &[Weak<Self>]| known.iter().filter_map(Weak::upgrade).find(|log| *log.source == *any.value);
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = find(&known()) {
            return Some(log);
        }
        let log = Arc::new(Self { source: any.value.as_slice().into(), ..Self::from_xds(&open(any, at)?, at)? });
        let mut known = known();
        known.retain(|log| log.strong_count() > 0);
        known.push(Arc::downgrade(&log));
        Some(log)
    }

    /// The messages that those in use were made of: kilobytes that each listener's own message has, too.
    #[must_use]
    pub fn sources() -> Vec<Arc<[u8]>> {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(Weak::upgrade).map(|log| Arc::clone(&log.source)).collect()
    }

    fn from_xds(config: &proto::Config, at: &At) -> Option<Self> {
        refuse!(at, config; stats_scope, gauges);
        #[expect(deprecated, reason = "what takes its place is not in Envoy's releases yet")]
        let prefix = config.stat_prefix.as_str();
        if prefix.is_empty() {
            at.field("stat_prefix").error("is required");
        }
        let mut log = Self { source: Arc::default(), groups: Vec::new() };
        let mut formats = Formats::default();
        for (index, counter) in config.counters.iter().enumerate() {
            let at = at.index("counters", index);
            let amount = match (&counter.value_fixed, counter.value_format.as_str()) {
                (Some(fixed), "") if fixed.value > 0 => Some(Amount::Fixed(fixed.value)),
                (None, format) if !format.is_empty() => lone(format, &at).map(Amount::Of),
                _ => {
                    at.error("needs either value_format or a value_fixed above zero");
                    None
                }
            };
            let group = log.group(counter.stat.as_ref(), prefix, &mut formats, &at);
            if let (Some((group, name)), Some(amount)) = (group, amount) {
                group.counters.push(Metric { name, amount });
            }
        }
        for (index, histogram) in config.histograms.iter().enumerate() {
            let at = at.index("histograms", index);
            let amount = amount(histogram, &at);
            let group = log.group(histogram.stat.as_ref(), prefix, &mut formats, &at);
            if let (Some((group, name)), Some(amount)) = (group, amount) {
                group.histograms.push(Metric { name, amount });
            }
        }
        Some(log)
    }

    /// The group that has a stat's tags, and the stat's whole name.
    fn group<'a>(
        &mut self,
        stat: Option<&'a Stat>,
        prefix: &str,
        formats: &mut Formats<'a>,
        at: &At,
    ) -> Option<(&mut Group, Arc<str>)> {
        let at = at.field("stat");
        let Some(stat) = stat.filter(|stat| !stat.name.is_empty()) else {
            at.field("name").error("is required");
            return None;
        };
        let mut tags = Vec::with_capacity(stat.tags.len());
        for (index, tag) in stat.tags.iter().enumerate() {
            let at = at.index("tags", index);
            refuse!(at, tag; rules);
            if tag.name.is_empty() || tag.value_format.is_empty() {
                at.error("needs a name and a value_format");
            }
            let text = tag.value_format.as_str();
            let format = match formats.get(text) {
                Some(format) => format.clone(),
                None => {
                    let parsed = Format::parse(text).map_err(|reason| at.field("value_format").error(reason)).ok()?;
                    formats.entry(text).or_insert(parsed).clone()
                }
            };
            tags.push((Arc::from(tag.name.as_str()), format));
        }
        let name = format!("{prefix}.{}", stat.name).into();
        let index = self.groups.iter().position(|group| group.tags == tags).unwrap_or_else(|| {
            let inputs = Input::of(&tags);
            self.groups.push(Group { tags, inputs, counters: Vec::new(), histograms: Vec::new() });
            self.groups.len() - 1
        });
        Some((&mut self.groups[index], name))
    }
}

impl Input {
    fn of(tags: &[(Arc<str>, Format)]) -> Vec<Self> {
        let mut inputs = Vec::new();
        for piece in tags.iter().flat_map(|(_, format)| &format.0) {
            if let Piece::Operator(operator) = piece {
                Self::add(operator, &mut inputs);
            }
        }
        inputs
    }

    fn add(operator: &Operator, inputs: &mut Vec<Self>) {
        let mut new = |input: Self| {
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        };
        match operator {
            Operator::Cel(program, _) => {
                // The node is the same for all records.
                let differing = program.paths().into_iter().filter(|path| path.attribute != Attribute::Node);
                differing.for_each(|path| new(Self::Attribute(path.clone())));
            }
            Operator::Coalesce(operators, _) => operators.iter().for_each(|operator| Self::add(operator, inputs)),
            _ => new(Self::Operator(operator.clone())),
        }
    }
}

fn amount(histogram: &ProtoHistogram, at: &At) -> Option<Amount> {
    let operator = lone(&histogram.value_format, at)?;
    Some(if histogram.unit() == Unit::Percent { Amount::ShareOf(operator) } else { Amount::Of(operator) })
}

/// A format that is one operator and nothing else, as Envoy asks of values.
fn lone(format: &str, at: &At) -> Option<Operator> {
    let at = at.field("value_format");
    let mut pieces = Format::parse(format).map_err(|reason| at.error(reason)).ok()?.0;
    match (pieces.pop(), pieces.is_empty()) {
        (Some(Piece::Operator(operator)), true) => Some(operator),
        _ => {
            at.error("must be exactly one operator");
            None
        }
    }
}

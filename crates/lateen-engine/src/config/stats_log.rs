//! Envoy's stats access logger (`access_loggers.stats.v3`): numbers made of each request's record, with tags.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as proto;
use proto::config::{Histogram as ProtoHistogram, Stat, histogram::Unit};

use super::error::{At, refuse};
use crate::route::format::{Format, Operator, Piece};

#[derive(Debug, PartialEq)]
pub struct StatsLog {
    /// Stats with the same tags, which are then filled in once for all of them.
    pub groups: Vec<Group>,
}

#[derive(Debug, PartialEq)]
pub struct Group {
    /// Names and values, in their order.
    pub tags: Vec<(Arc<str>, Format)>,
    pub counters: Vec<Metric>,
    pub histograms: Vec<Metric>,
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

/// Envoy's `Histogram::PercentScale`.
pub const PERCENT_SCALE: f64 = 1_000_000.0;

impl StatsLog {
    pub(super) fn from_xds(config: &proto::Config, at: &At) -> Option<Self> {
        refuse!(at, config; stats_scope, gauges);
        #[expect(deprecated, reason = "what takes its place is not in Envoy's releases yet")]
        let prefix = config.stat_prefix.as_str();
        if prefix.is_empty() {
            at.field("stat_prefix").error("is required");
        }
        let mut log = Self { groups: Vec::new() };
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
            let group = log.group(counter.stat.as_ref(), prefix, &at);
            if let (Some((group, name)), Some(amount)) = (group, amount) {
                group.counters.push(Metric { name, amount });
            }
        }
        for (index, histogram) in config.histograms.iter().enumerate() {
            let at = at.index("histograms", index);
            let amount = amount(histogram, &at);
            let group = log.group(histogram.stat.as_ref(), prefix, &at);
            if let (Some((group, name)), Some(amount)) = (group, amount) {
                group.histograms.push(Metric { name, amount });
            }
        }
        Some(log)
    }

    /// The group that has a stat's tags, and the stat's whole name.
    fn group(&mut self, stat: Option<&Stat>, prefix: &str, at: &At) -> Option<(&mut Group, Arc<str>)> {
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
            let format = Format::parse(&tag.value_format).map_err(|reason| at.field("value_format").error(reason));
            tags.push((Arc::from(tag.name.as_str()), format.ok()?));
        }
        let name = format!("{prefix}.{}", stat.name).into();
        let index = self.groups.iter().position(|group| group.tags == tags).unwrap_or_else(|| {
            self.groups.push(Group { tags, counters: Vec::new(), histograms: Vec::new() });
            self.groups.len() - 1
        });
        Some((&mut self.groups[index], name))
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

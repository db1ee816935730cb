//! What Telemetry objects change about metrics (`spec.metrics`).

use lateen_api::telemetry::settings::{IstioMetric, MetricsOverride, TagOperation, TagOverride};

use super::Side;
use super::labels::{self, Label};
use super::merge;
use crate::view::View;

/// The changes that concern one side of a proxy, in their order.
pub(super) struct Overrides(Vec<Change>);

/// A change, for one metric or all.
struct Change {
    metric: Option<IstioMetric>,
    disabled: Option<bool>,
    /// Names of labels, and what they are to be; none: removed.
    labels: Vec<(String, Option<String>)>,
}

/// What holds for one side of a workload's proxy; none: nobody wants metrics.
pub(super) fn of(view: &View<'_>, side: Side<'_>) -> Option<Overrides> {
    let config = view.mesh.config();
    let usual = ["prometheus".to_owned()];
    let defaults = config.default_providers.metrics.as_deref().unwrap_or(&usual);
    let objects = view.mesh.telemetries(&view.proxy.workload);
    let takes = |name: &str| config.provider(name).is_some_and(|provider| provider.counts());
    let changes = merge::metrics(&objects, defaults, side.mode(), takes)?;
    Some(Overrides(changes.into_iter().filter_map(Change::of).collect()))
}

impl Change {
    /// None: it is about somebody else's metric.
    fn of(change: &MetricsOverride) -> Option<Self> {
        let selector = change.matches.as_ref();
        if selector.is_some_and(|selector| selector.custom_metric.is_some()) {
            return None;
        }
        let label = |(name, tag): (&String, &TagOverride)| {
            let value = (tag.operation == TagOperation::Upsert)
                .then(|| tag.expression().map_or_else(|| labels::literal(labels::UNKNOWN), value));
            (name.clone(), value)
        };
        Some(Self {
            metric: selector.and_then(|selector| selector.metric).filter(|metric| *metric != IstioMetric::AllMetrics),
            disabled: change.disabled,
            labels: change.tag_overrides.iter().map(label).collect(),
        })
    }
}

impl Overrides {
    /// The labels that a metric is to have; none for one that is not to be.
    pub(super) fn labels(&self, metric: IstioMetric, standard: &[Label]) -> Option<Vec<(String, String)>> {
        let changes = || self.0.iter().filter(|change| change.metric.is_none_or(|wanted| wanted == metric));
        if changes().filter_map(|change| change.disabled).next_back() == Some(true) {
            return None;
        }
        let mut out: Vec<_> = standard.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        for (name, value) in changes().flat_map(|change| &change.labels) {
            let at = out.iter().position(|(known, _)| known == name);
            match (value, at) {
                (None, Some(at)) => drop(out.remove(at)),
                (None, None) => {}
                (Some(value), Some(at)) => out[at].1.clone_from(value),
                (Some(value), None) => out.push((name.clone(), value.clone())),
            }
        }
        Some(out)
    }
}

/// What Istio calls unknown is what an expression has no value for.
fn value(expression: &str) -> String {
    labels::first_of(&[without_conversion(expression)], labels::UNKNOWN)
}

/// Envoy's own expressions have no `string()`, and need none for what becomes a label.
fn without_conversion(expression: &str) -> &str {
    let trimmed = expression.trim();
    let within = trimmed.strip_prefix("string(").and_then(|rest| rest.strip_suffix(')'));
    within.filter(|within| !within.contains(['(', ')'])).unwrap_or(trimmed)
}

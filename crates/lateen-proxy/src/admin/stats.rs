//! `/stats`: counters, gauges and histograms as Envoy prints them.

use std::fmt::Write as _;

use http::StatusCode;
use regex::Regex;
use serde_json::{Value, json};

use super::query::Query;
use super::{Answer, json_answer, text};
use crate::telemetry::stats::{Metric, Registry, Summary};

/// Envoy's quantiles.
const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// Which of them are wanted.
struct Wanted {
    filter: Option<Regex>,
    used_only: bool,
    kinds: [bool; 3],
}

impl Wanted {
    fn new(query: &Query<'_>) -> Result<Self, String> {
        let filter = query.value("filter").map(Regex::new).transpose();
        let filter = filter.map_err(|error| format!("Invalid re2 regex: {error}\n"))?;
        let kinds = match query.value("type") {
            None | Some("All") => [true, true, true],
            Some("Counters") => [true, false, false],
            Some("Gauges") => [false, true, false],
            Some("Histograms") => [false, false, true],
            Some(_) => return Err("usage: /stats?type=(All|Counters|Gauges|Histograms)\n\n".to_owned()),
        };
        Ok(Self { filter, used_only: query.has("usedonly"), kinds })
    }

    /// Envoy's `usedonly` is about what was ever written to; a gauge that is back at zero looks unused here.
    fn admits(&self, name: &str, metric: &Metric) -> bool {
        let (kind, used) = match metric {
            Metric::Counter(counter) => (0, counter.get() > 0),
            Metric::Gauge(gauge) => (1, gauge.get() > 0),
            Metric::Histogram(histogram) => (2, histogram.summary().count > 0),
        };
        self.kinds[kind] && (used || !self.used_only) && self.filter.as_ref().is_none_or(|filter| filter.is_match(name))
    }
}

pub(super) fn stats(registry: &Registry, query: &Query<'_>) -> Answer {
    let wanted = match Wanted::new(query) {
        Ok(wanted) => wanted,
        Err(complaint) => return text(StatusCode::BAD_REQUEST, complaint),
    };
    match query.value("format") {
        None | Some("text") => text(StatusCode::OK, plain(registry, &wanted)),
        Some("json") => json_answer(&as_json(registry, &wanted)),
        Some("prometheus") => exposition(registry, &wanted),
        Some(_) => text(StatusCode::BAD_REQUEST, "usage: /stats?format=(json|prometheus|text)\n\n"),
    }
}

/// `/stats/prometheus`.
pub(super) fn prometheus(registry: &Registry, query: &Query<'_>) -> Answer {
    match Wanted::new(query) {
        Ok(wanted) => exposition(registry, &wanted),
        Err(complaint) => text(StatusCode::BAD_REQUEST, complaint),
    }
}

fn exposition(registry: &Registry, wanted: &Wanted) -> Answer {
    text(StatusCode::OK, registry.prometheus(|name, metric| wanted.admits(name, metric)))
}

type Named<T> = Vec<(String, T)>;

/// By name: numbers, and histograms.
fn sorted(registry: &Registry, wanted: &Wanted) -> (Named<u64>, Named<Summary>) {
    let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
    for (name, metric) in registry.named().into_iter().filter(|(name, metric)| wanted.admits(name, metric)) {
        match metric {
            Metric::Counter(counter) => numbers.push((name, counter.get())),
            Metric::Gauge(gauge) => numbers.push((name, gauge.get())),
            Metric::Histogram(histogram) => histograms.push((name, histogram.summary())),
        }
    }
    numbers.sort();
    histograms.sort_by(|(left, _), (right, _)| left.cmp(right));
    (numbers, histograms)
}

fn plain(registry: &Registry, wanted: &Wanted) -> String {
    let (numbers, histograms) = sorted(registry, wanted);
    let mut text = String::new();
    // Writing to a String does not fail.
    for (name, value) in numbers {
        let _ = writeln!(text, "{name}: {value}");
    }
    for (name, summary) in histograms {
        let _ = write!(text, "{name}:");
        if summary.count == 0 {
            text.push_str(" No recorded values");
        }
        // The interval is Envoy's flush interval, which there is none of here: nothing was recorded in it.
        for quantile in QUANTILES.iter().filter(|_| summary.count > 0) {
            let _ = write!(text, " P{}(nan,{})", percent(*quantile), summary.quantile(*quantile));
        }
        text.push('\n');
    }
    text
}

fn percent(quantile: f64) -> f64 {
    (quantile * 1000.0).round() / 10.0
}

fn as_json(registry: &Registry, wanted: &Wanted) -> Value {
    let (numbers, histograms) = sorted(registry, wanted);
    let mut stats: Vec<Value> =
        numbers.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    if !histograms.is_empty() {
        let quantiles: Vec<f64> = QUANTILES.iter().map(|quantile| percent(*quantile)).collect();
        let computed = |(name, summary): (String, Summary)| {
            let value = |quantile: &f64| {
                let cumulative = (summary.count > 0).then(|| summary.quantile(*quantile));
                json!({ "interval": null, "cumulative": cumulative })
            };
            json!({ "name": name, "values": QUANTILES.iter().map(value).collect::<Vec<_>>() })
        };
        let computed: Vec<Value> = histograms.into_iter().map(computed).collect();
        stats.push(json!({ "histograms": { "supported_quantiles": quantiles, "computed_quantiles": computed } }));
    }
    json!({ "stats": stats })
}

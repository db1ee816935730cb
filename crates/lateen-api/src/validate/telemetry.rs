//! Rules for `Telemetry`.

use lateen_cel::Program;

use super::check::Check;
use super::metadata;
use crate::telemetry::Telemetry;
use crate::telemetry::settings::{CustomTag, Metrics, ProviderRef, TagOperation, Tracing};

pub(super) fn check(check: &mut Check<'_>, spec: &Telemetry) {
    metadata::targets(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    for (index, tracing) in spec.tracing.iter().enumerate() {
        check_tracing(check, &format!("spec.tracing[{index}]"), tracing);
    }
    for (index, metrics) in spec.metrics.iter().enumerate() {
        check_metrics(check, &format!("spec.metrics[{index}]"), metrics);
    }
    for (index, logging) in spec.access_logging.iter().enumerate() {
        let field = format!("spec.accessLogging[{index}]");
        providers(check, &field, &logging.providers);
        // A log from which requests were left out silently would be worse than none.
        if let Some(Err(error)) = logging.filter.as_ref().map(|filter| Program::parse(&filter.expression)) {
            check.error(format!("{field}.filter.expression"), error);
        }
    }
}

fn providers(check: &mut Check<'_>, field: &str, providers: &[ProviderRef]) {
    for (index, _) in providers.iter().enumerate().filter(|(_, provider)| provider.name.is_empty()) {
        check.error(format!("{field}.providers[{index}].name"), "`name` is required and missing");
    }
}

fn check_tracing(check: &mut Check<'_>, field: &str, tracing: &Tracing) {
    providers(check, field, &tracing.providers);
    if tracing.random_sampling_percentage.is_some_and(|percentage| !(0.0..=100.0).contains(&percentage)) {
        check.error(format!("{field}.randomSamplingPercentage"), "the percentage is not in the range 0 to 100");
    }
    for (name, tag) in &tracing.custom_tags {
        let missing = match tag {
            CustomTag::Literal(value) | CustomTag::Formatter(value) => value.value.is_empty(),
            CustomTag::Environment(source) | CustomTag::Header(source) => source.name.is_empty(),
        };
        if missing {
            check.error(format!("{field}.customTags.{name}"), format!("the tag `{name}` says nothing"));
        }
    }
}

fn check_metrics(check: &mut Check<'_>, field: &str, metrics: &Metrics) {
    providers(check, field, &metrics.providers);
    check.duration(format!("{field}.reportingInterval"), metrics.reporting_interval);
    for (index, entry) in metrics.overrides.iter().enumerate() {
        let place = format!("{field}.overrides[{index}]");
        if let Some(selector) = &entry.matches
            && selector.metric.is_some()
            && selector.custom_metric.is_some()
        {
            check.error(format!("{place}.match"), "only one of `metric` and `customMetric` may be set");
        }
        for (name, tag) in &entry.tag_overrides {
            let place = format!("{place}.tagOverrides.{name}");
            match tag.operation {
                TagOperation::Upsert if tag.value.is_empty() => {
                    check.error(place, "the operation UPSERT needs `value`")
                }
                TagOperation::Upsert => {
                    if let Err(error) = Program::parse(&tag.value) {
                        check.warn(format!("{place}.value"), format!("{error}: the label is `unknown`"));
                    }
                }
                TagOperation::Remove if !tag.value.is_empty() => {
                    check.error(place, "the operation REMOVE takes no `value`");
                }
                _ => {}
            }
        }
    }
}

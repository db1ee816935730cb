//! What Telemetry objects say together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::telemetry::Telemetry;
use lateen_api::telemetry::settings::{
    AccessLogging, CustomTag, IstioMetric, LogFilter, Metrics, MetricsOverride, ModeSelector, ProviderRef, WorkloadMode,
};

/// The objects that hold for a workload; later ones say more.
pub(super) type Objects = [Arc<Resource<Telemetry>>];

/// Which side of requests a listener is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Client,
    Server,
}

impl Mode {
    fn fits(self, selector: Option<&ModeSelector>) -> bool {
        self.is_in(selector.map(|selector| selector.mode))
    }

    fn is_in(self, mode: Option<WorkloadMode>) -> bool {
        match mode.unwrap_or(WorkloadMode::ClientAndServer) {
            WorkloadMode::ClientAndServer => true,
            WorkloadMode::Client => self == Self::Client,
            WorkloadMode::Server => self == Self::Server,
        }
    }
}

fn names(providers: &[ProviderRef]) -> Vec<&str> {
    providers.iter().map(|provider| provider.name.as_str()).collect()
}

/// Of a provider of access logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Log<'a> {
    pub(super) disabled: bool,
    pub(super) filter: Option<&'a LogFilter>,
}

/// The providers that keep a log, and of what. None: nothing is said of access logs, not by the mesh config either.
pub(super) fn logging<'a>(
    objects: &'a Objects,
    defaults: &'a [String],
    mode: Mode,
) -> Option<BTreeMap<&'a str, Log<'a>>> {
    let defaults: Vec<&str> = defaults.iter().map(String::as_str).collect();
    let levels: Vec<&[AccessLogging]> =
        objects.iter().map(|object| &*object.spec.access_logging).filter(|entries| !entries.is_empty()).collect();
    if levels.is_empty() {
        let plain = defaults.iter().map(|name| (*name, Log::default())).collect();
        return (!defaults.is_empty()).then_some(plain);
    }
    // The last level that names providers says which there are, and the last entry that names one what it keeps.
    let mut in_scope: BTreeSet<&str> = defaults.iter().copied().collect();
    let mut filters: BTreeMap<&str, Option<&LogFilter>> = BTreeMap::new();
    for level in &levels {
        let entries = level.iter().filter(|entry| mode.fits(entry.matches.as_ref()));
        let mut named = BTreeSet::new();
        for entry in entries {
            for name in names(&entry.providers) {
                named.insert(name);
                filters.insert(name, entry.filter.as_ref());
            }
        }
        if !named.is_empty() {
            in_scope = named;
        }
    }
    // An entry without providers is about those of the entry before.
    let mut parents = defaults;
    let mut logs = BTreeMap::new();
    for entry in levels.into_iter().flatten() {
        if !entry.providers.is_empty() {
            parents = names(&entry.providers);
        }
        for name in parents.iter().filter(|name| in_scope.contains(*name) && mode.fits(entry.matches.as_ref())) {
            let log = if entry.disabled == Some(true) {
                Log { disabled: true, filter: None }
            } else {
                Log { disabled: false, filter: filters.get(name).copied().flatten() }
            };
            logs.insert(*name, log);
        }
    }
    Some(logs)
}

/// How requests are traced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traced<'a> {
    pub(super) provider: Option<&'a str>,
    pub(super) disabled: bool,
    pub(super) sampling: Option<f64>,
    pub(super) tags: Option<&'a BTreeMap<String, CustomTag>>,
    pub(super) by_request_id: bool,
    pub(super) istio_tags: bool,
    pub(super) propagates: bool,
}

/// None: nothing is said of traces, not by the mesh config either.
pub(super) fn tracing<'a>(objects: &'a Objects, defaults: &'a [String], mode: Mode) -> Option<Traced<'a>> {
    let mut entries = objects.iter().flat_map(|object| &object.spec.tracing).peekable();
    if entries.peek().is_none() && defaults.is_empty() {
        return None;
    }
    let mut traced = Traced {
        provider: defaults.first().map(String::as_str),
        disabled: false,
        sampling: None,
        tags: None,
        by_request_id: true,
        istio_tags: true,
        propagates: true,
    };
    for entry in entries.filter(|entry| mode.fits(entry.matches.as_ref())) {
        // One side has one provider.
        if let Some(first) = entry.providers.first() {
            traced.provider = Some(&first.name);
        }
        traced.disabled = entry.disable_span_reporting.unwrap_or(traced.disabled);
        traced.sampling = entry.random_sampling_percentage.or(traced.sampling);
        if !entry.custom_tags.is_empty() {
            traced.tags = Some(&entry.custom_tags);
        }
        traced.by_request_id = entry.use_request_id_for_trace_sampling.unwrap_or(traced.by_request_id);
        traced.istio_tags = entry.enable_istio_tags.unwrap_or(traced.istio_tags);
        traced.propagates = entry.disable_context_propagation.map_or(traced.propagates, |disabled| !disabled);
    }
    Some(traced)
}

/// What is changed about the metrics of providers that `take` them, in its order; none: nobody takes any. One that is turned off
/// for all metrics by that word takes them again as soon as anything else is said of it.
pub(super) fn metrics<'a>(
    objects: &'a Objects,
    defaults: &'a [String],
    mode: Mode,
    take: impl Fn(&str) -> bool,
) -> Option<Vec<&'a MetricsOverride>> {
    let defaults: Vec<&str> = defaults.iter().map(String::as_str).collect();
    let entries: Vec<&Metrics> = objects.iter().flat_map(|object| &object.spec.metrics).collect();
    if entries.is_empty() {
        return defaults.into_iter().any(take).then(Vec::new);
    }
    let last = entries.iter().rev().find(|entry| !entry.providers.is_empty());
    let in_scope = last.map_or_else(|| defaults.clone(), |entry| names(&entry.providers));
    let (mut parents, mut is_told, mut is_off, mut changes) = (defaults, false, false, Vec::new());
    for entry in entries {
        if !entry.providers.is_empty() {
            parents = names(&entry.providers);
        }
        if !parents.iter().any(|name| in_scope.contains(name) && take(name)) {
            continue;
        }
        is_told = true;
        let concern = |change: &&MetricsOverride| mode.is_in(change.matches.as_ref().map(|selector| selector.mode));
        for change in entry.overrides.iter().filter(concern) {
            let all = change.matches.as_ref().and_then(|selector| selector.metric) == Some(IstioMetric::AllMetrics);
            is_off = all && change.disabled == Some(true);
            if !is_off {
                changes.push(change);
            }
        }
    }
    (is_told && !is_off).then_some(changes)
}

#[cfg(test)]
mod tests {
    use lateen_api::Object;

    use super::*;

    /// Objects with these specs, in the order in which they hold.
    fn objects(specs: &[&str]) -> Vec<Arc<Resource<Telemetry>>> {
        let of = |spec: &&str| {
            let text = format!(
                "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: t, namespace: default}}\nspec: {spec}\n"
            );
            let parsed = lateen_api::parse_documents("t.yaml", &text, "default");
            match parsed.objects.into_iter().next() {
                Some(Object::Telemetry(resource)) => resource,
                other => panic!("{spec}: {other:?} {:?}", parsed.diagnostics),
            }
        };
        specs.iter().map(of).collect()
    }

    fn logs(specs: &[&str], defaults: &[&str], mode: Mode) -> Option<Vec<(String, bool, Option<String>)>> {
        let objects = objects(specs);
        let defaults: Vec<String> = defaults.iter().map(|name| (*name).to_owned()).collect();
        let logs = logging(&objects, &defaults, mode)?;
        let shown = |(name, log): (&str, Log<'_>)| {
            (name.to_owned(), log.disabled, log.filter.map(|filter| filter.expression.clone()))
        };
        Some(logs.into_iter().map(shown).collect())
    }

    fn on(name: &str) -> (String, bool, Option<String>) {
        (name.to_owned(), false, None)
    }

    fn off(name: &str) -> (String, bool, Option<String>) {
        (name.to_owned(), true, None)
    }

    #[test]
    fn who_keeps_a_log_is_said_by_the_last_level_that_names_somebody() {
        use Mode::{Client, Server};
        assert_eq!(logs(&[], &[], Client), None);
        assert_eq!(logs(&[], &["envoy"], Client), Some(vec![on("envoy")]));
        let envoy = "{accessLogging: [{providers: [{name: envoy}]}]}";
        let otel = "{accessLogging: [{providers: [{name: otel}]}]}";
        assert_eq!(logs(&[envoy], &[], Client), Some(vec![on("envoy")]));
        assert_eq!(logs(&[envoy, otel], &[], Client), Some(vec![on("otel")]));
        // What a level says without a name is about those that were named before.
        let disabled = "{accessLogging: [{disabled: true}]}";
        assert_eq!(logs(&[envoy, disabled], &[], Client), Some(vec![off("envoy")]));
        assert_eq!(logs(&[disabled], &["envoy"], Client), Some(vec![off("envoy")]));
        let servers = "{accessLogging: [{match: {mode: SERVER}, providers: [{name: envoy}]}]}";
        assert_eq!(logs(&[servers], &[], Server), Some(vec![on("envoy")]));
        assert_eq!(logs(&[servers], &[], Client), Some(vec![]));
        let but_for_clients =
            "{accessLogging: [{providers: [{name: envoy}]}, {match: {mode: CLIENT}, disabled: true}]}";
        assert_eq!(logs(&[but_for_clients], &[], Client), Some(vec![off("envoy")]));
        assert_eq!(logs(&[but_for_clients], &[], Server), Some(vec![on("envoy")]));
        let errors = "{accessLogging: [{providers: [{name: envoy}], filter: {expression: \"response.code >= 500\"}}]}";
        let filtered = ("envoy".to_owned(), false, Some("response.code >= 500".to_owned()));
        assert_eq!(logs(&[envoy, errors], &[], Server), Some(vec![filtered]));
    }

    /// How many changes hold; none: nothing is counted.
    fn counted(specs: &[&str], defaults: &[&str], mode: Mode) -> Option<usize> {
        let defaults: Vec<String> = defaults.iter().map(|name| (*name).to_owned()).collect();
        let objects = objects(specs);
        metrics(&objects, &defaults, mode, |name| name == "prometheus").map(|changes| changes.len())
    }

    #[test]
    fn metrics_are_for_the_providers_that_are_named_last() {
        use Mode::{Client, Server};
        assert_eq!(counted(&[], &["prometheus"], Client), Some(0));
        assert_eq!(counted(&[], &[], Client), None);
        let here =
            "{metrics: [{providers: [{name: prometheus}], overrides: [{match: {mode: SERVER}, disabled: true}]}]}";
        let there = "{metrics: [{providers: [{name: other}]}]}";
        assert_eq!(counted(&[here], &[], Server), Some(1));
        assert_eq!(counted(&[here], &[], Client), Some(0));
        assert_eq!(counted(&[here, there], &["prometheus"], Client), None);
        assert_eq!(counted(&[there, here], &[], Client), Some(0));
        // What is said of nobody is said of those who were named before.
        let change = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, disabled: false}]}]}";
        assert_eq!(counted(&[there, change], &["prometheus"], Client), None);
        assert_eq!(counted(&[here, change], &[], Server), Some(2));
    }

    #[test]
    fn what_is_turned_off_as_a_whole_is_on_again_where_more_is_said() {
        use Mode::{Client, Server};
        let off = "{metrics: [{overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]}";
        let clients = "{metrics: [{overrides: [{match: {metric: ALL_METRICS, mode: CLIENT}, disabled: true}]}]}";
        let nothing = "{metrics: [{}]}";
        let change = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: false}]}]}";
        assert_eq!(counted(&[off], &["prometheus"], Client), None);
        assert_eq!(counted(&[off, nothing], &["prometheus"], Client), None);
        assert_eq!(counted(&[clients], &["prometheus"], Server), Some(0));
        assert_eq!(counted(&[off, change], &["prometheus"], Server), Some(1));
        assert_eq!(counted(&[off, change], &["prometheus"], Client), None);
    }

    #[test]
    fn later_objects_say_more_of_traces() {
        let mesh = "{tracing: [{providers: [{name: otel}], randomSamplingPercentage: 10, customTags: {a: {literal: {value: x}}}}]}";
        let namespace = "{tracing: [{randomSamplingPercentage: 50, enableIstioTags: false}]}";
        let workload = "{tracing: [{match: {mode: SERVER}, disableSpanReporting: true}, {match: {mode: CLIENT}, useRequestIdForTraceSampling: false, disableContextPropagation: true}]}";
        let objects = objects(&[mesh, namespace, workload]);
        let client = tracing(&objects, &[], Mode::Client).expect("something is said");
        assert_eq!((client.provider, client.sampling, client.disabled), (Some("otel"), Some(50.0), false));
        assert_eq!(client.tags.map(BTreeMap::len), Some(1));
        assert!(!client.istio_tags && !client.by_request_id && !client.propagates);
        let server = tracing(&objects, &[], Mode::Server).expect("something is said");
        assert!(server.disabled && server.by_request_id && server.propagates);
        assert_eq!(tracing(&[], &[], Mode::Client), None);
        let defaults = ["zipkin".to_owned()];
        assert_eq!(tracing(&[], &defaults, Mode::Client).and_then(|traced| traced.provider), Some("zipkin"));
    }
}

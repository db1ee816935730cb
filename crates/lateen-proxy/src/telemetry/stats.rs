//! Counters, gauges and histograms under Envoy's names. A handle is looked up once, when what it counts is set up; counting
//! is then one atomic addition.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lateen_live::BUCKETS;

use super::series::{Series, Swept, Tags, Used};

#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until the guard is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }
}

/// Counts one in a gauge while it lives.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds or bytes in Envoy's default buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Arc<HistogramCells>);

#[derive(Debug, Default)]
struct HistogramCells {
    /// One per bucket, and one for what is above them.
    counts: [AtomicU64; BUCKETS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

impl Histogram {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "values are times and sizes: small and positive"
    )]
    pub(crate) fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
    }

    pub(crate) fn summary(&self) -> Summary {
        let counts = self.counts();
        Summary { counts, count: counts.iter().sum() }
    }

    /// Of each bucket, and of what is above them.
    pub(crate) fn counts(&self) -> [u64; BUCKETS.len() + 1] {
        self.0.counts.each_ref().map(|cell| cell.load(Ordering::Relaxed))
    }
}

/// Whose number it is: the tag in Prometheus' form, the middle part in Envoy's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Server,
    Cluster(Arc<str>),
    Http(Arc<str>),
    Tcp(Arc<str>),
    Listener(Arc<str>),
    /// Virtual host, and the route's own name for its statistics.
    Route(Arc<str>, Arc<str>),
    /// A cluster's gRPC calls. Service and method are part of the name: what reads the same is one metric.
    Grpc(Arc<str>),
    /// Of limits that share their name.
    LocalRateLimit(Arc<str>),
    /// Of network filters: this stands before the name, whatever it is.
    Named(Arc<str>),
}

impl Scope {
    fn family(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Cluster(_) => "cluster",
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Listener(_) => "listener",
            Self::Route(..) => "vhost_route",
            Self::Grpc(_) => "cluster_grpc",
            Self::LocalRateLimit(_) => "http_local_rate_limit",
            Self::Named(_) => "",
        }
    }

    /// In Envoy's form: what stands before the name.
    fn prefix(&self) -> String {
        match self {
            Self::Server => "server".to_owned(),
            Self::Cluster(name) | Self::Http(name) | Self::Tcp(name) | Self::Listener(name) => {
                format!("{}.{name}", self.family())
            }
            Self::Route(virtual_host, route) => format!("vhost.{virtual_host}.route.{route}"),
            Self::Grpc(cluster) => format!("cluster.{cluster}.grpc"),
            Self::LocalRateLimit(name) => format!("{name}.{}", self.family()),
            Self::Named(name) => name.to_string(),
        }
    }

    /// A name of this scope in Prometheus' form, and its tags.
    fn prometheus(&self, name: &str) -> (String, String) {
        let mut words = name.splitn(3, '.');
        let (name, tags) = match (self, words.next(), words.next(), words.next()) {
            // Envoy takes each for a word without dots; what is left of them stays in the name.
            // `replace_dots_in_grpc_service_name` is for that.
            (Self::Grpc(_), Some(service), Some(method), Some(rest)) => {
                let method = prometheus_tag("envoy_grpc_bridge_method", method);
                let service = prometheus_tag("envoy_grpc_bridge_service", service);
                (rest, format!("{method},{service},{}", self.tags()))
            }
            // The name of what a handshake came to is a tag (Envoy: `envoy_ssl_curve` and the like).
            (Self::Cluster(_) | Self::Listener(_), Some("ssl"), Some(what), Some(value)) => {
                let tag = prometheus_tag(&format!("envoy_ssl_{}", what.trim_end_matches('s')), value);
                let name = format!("envoy_{}_ssl_{what}", self.family());
                return (name, format!("{tag},{}", self.tags()));
            }
            (Self::Named(prefix), ..) => {
                return (format!("envoy_{}_{}", prometheus_name(prefix), prometheus_name(name)), String::new());
            }
            _ => (name, self.tags()),
        };
        (format!("envoy_{}_{}", self.family(), prometheus_name(name)), tags)
    }

    /// In Prometheus' form.
    fn tags(&self) -> String {
        let tag = prometheus_tag;
        match self {
            Self::Server | Self::Named(_) => String::new(),
            Self::Cluster(name) | Self::Grpc(name) => tag("envoy_cluster_name", name),
            Self::Http(prefix) => tag("envoy_http_conn_manager_prefix", prefix),
            Self::Tcp(prefix) => tag("envoy_tcp_prefix", prefix),
            Self::Listener(address) => tag("envoy_listener_address", address),
            Self::LocalRateLimit(name) => tag("envoy_local_http_ratelimit_prefix", name),
            Self::Route(virtual_host, route) => {
                format!("{},{}", tag("envoy_virtual_host", virtual_host), tag("envoy_route", route))
            }
        }
    }
}

/// Of a route that asks for statistics of its own.
#[derive(Debug)]
pub(crate) struct RouteStats {
    total: Counter,
    completed: Counter,
    /// From 1xx to 5xx.
    classes: [Counter; 5],
    time: Histogram,
}

impl RouteStats {
    pub(crate) fn new(registry: &Registry, scope: &Scope) -> Self {
        let counter = |name| registry.counter(scope, name);
        Self {
            total: counter("upstream_rq_total"),
            completed: counter("upstream_rq_completed"),
            classes: ["upstream_rq_1xx", "upstream_rq_2xx", "upstream_rq_3xx", "upstream_rq_4xx", "upstream_rq_5xx"]
                .map(counter),
            time: registry.histogram(scope, "upstream_rq_time"),
        }
    }

    /// A request that is over, with the status that it was answered with, if it was.
    pub(crate) fn count(&self, status: u16, milliseconds: f64) {
        self.total.inc();
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class)) {
            self.completed.inc();
            class.inc();
            self.time.record(milliseconds);
        }
    }
}

/// Of tunnels between proxies of ours, and of the connections that went through them.
#[derive(Debug)]
pub(crate) struct TunnelStats {
    pub upstream_total: Counter,
    pub upstream_active: Gauge,
    pub upstream_streams: Counter,
    pub downstream_total: Counter,
    pub downstream_active: Gauge,
    pub downstream_streams: Counter,
    pub downstream_refused: Counter,
}

impl TunnelStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name| registry.counter(&Scope::Server, name);
        let gauge = |name| registry.gauge(&Scope::Server, name);
        Self {
            upstream_total: counter("tunnel.upstream_total"),
            upstream_active: gauge("tunnel.upstream_active"),
            upstream_streams: counter("tunnel.upstream_streams_total"),
            downstream_total: counter("tunnel.downstream_total"),
            downstream_active: gauge("tunnel.downstream_active"),
            downstream_streams: counter("tunnel.downstream_streams_total"),
            downstream_refused: counter("tunnel.downstream_streams_refused"),
        }
    }
}

/// What a histogram has recorded so far.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    counts: [u64; BUCKETS.len() + 1],
    pub count: u64,
}

impl Summary {
    /// The value below which this share of what was recorded lies: in a straight line within its bucket, and at the last
    /// bound above all buckets.
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (upper, count) in BUCKETS.iter().zip(&self.counts) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return lower + (upper - lower) * (rank - below) / count;
            }
            below += count;
            lower = *upper;
        }
        lower
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Metric {
    /// As Prometheus calls it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    /// A counter's or gauge's value; a histogram's sum, in whole units.
    pub(crate) fn total(&self) -> u64 {
        match self {
            Self::Counter(counter) => counter.get(),
            Self::Gauge(gauge) => gauge.get(),
            Self::Histogram(histogram) => histogram.0.sum.load(Ordering::Relaxed) / 1000,
        }
    }

    /// Where its numbers lie: nothing else is there while it is held.
    pub(crate) fn address(&self) -> usize {
        match self {
            Self::Counter(Counter(cell)) | Self::Gauge(Gauge(cell)) => Arc::as_ptr(cell).addr(),
            Self::Histogram(Histogram(cells)) => Arc::as_ptr(cells).addr(),
        }
    }
}

/// What a metric is called within its scope.
type Name = Cow<'static, str>;

/// All numbers of a process. Locked only when a handle is looked up or everything is printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Metrics>);

#[derive(Debug, Default)]
struct Metrics {
    /// The proxy's own.
    own: Mutex<BTreeMap<(Name, Scope), Metric>>,
    /// What the configuration asks for: whole names, `istio.requests_total`, with tags.
    tagged: Mutex<Tagged>,
}

/// A series' name for Prometheus, its tags and its numbers.
type Found = (Arc<str>, Tags, Metric);

#[derive(Debug, Default)]
struct Tagged {
    series: BTreeMap<(Arc<str>, Tags), Series<Metric>>,
    swept: Swept,
    /// Another one whenever a series comes or goes.
    generation: u64,
}

impl Tagged {
    fn forget(&mut self, now: Instant) {
        let before = self.series.len();
        self.series.retain(|_, series| !series.used.is_forgotten(now));
        if self.series.len() != before {
            self.generation += 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn metric(&self, scope: &Scope, name: Name, new: fn() -> Metric) -> Metric {
        lock(&self.0.own).entry((name, scope.clone())).or_insert_with(new).clone()
    }

    /// Two configurations may ask for one name as different kinds: the later gets one that nobody sees.
    pub(crate) fn tagged_counter(&self, name: &Arc<str>, tags: &Tags) -> Series<Counter> {
        let (metric, used) = self.tagged(name, tags, || Metric::Counter(Counter::default()));
        let metric = match metric {
            Metric::Counter(counter) => counter,
            Metric::Gauge(_) | Metric::Histogram(_) => Counter::default(),
        };
        Series { metric, used }
    }

    /// See [`Registry::tagged_counter`].
    pub(crate) fn tagged_histogram(&self, name: &Arc<str>, tags: &Tags) -> Series<Histogram> {
        let (metric, used) = self.tagged(name, tags, || Metric::Histogram(Histogram::default()));
        let metric = match metric {
            Metric::Histogram(histogram) => histogram,
            Metric::Gauge(_) | Metric::Counter(_) => Histogram::default(),
        };
        Series { metric, used }
    }

    /// One that is never forgotten: its tags are not from traffic.
    pub(crate) fn lasting_counter(&self, name: &Arc<str>, tags: &Tags) -> Counter {
        let Series { metric, used } = self.tagged_counter(name, tags);
        used.keep();
        metric
    }

    fn tagged(&self, name: &Arc<str>, tags: &Tags, new: fn() -> Metric) -> (Metric, Used) {
        let now = Instant::now();
        let mut tagged = lock(&self.0.tagged);
        // Nobody may ever ask for all of them.
        if tagged.swept.is_due(now) {
            tagged.forget(now);
        }
        let Tagged { series, generation, .. } = &mut *tagged;
        let series = series.entry((Arc::clone(name), Arc::clone(tags))).or_insert_with(|| {
            *generation += 1;
            Series { metric: new(), used: Used::default() }
        });
        series.used.note(now);
        (series.metric.clone(), series.used.clone())
    }

    /// Another number whenever a series with tags has come or gone.
    pub(crate) fn generation(&self) -> u64 {
        lock(&self.0.tagged).generation
    }

    /// The series with tags whose names for Prometheus are wanted, under those names, and the generation that they are of.
    pub(crate) fn series(&self, wanted: impl Fn(&str) -> bool) -> (u64, Vec<Found>) {
        let mut tagged = lock(&self.0.tagged);
        tagged.forget(Instant::now());
        let (mut found, mut last) = (Vec::new(), ("", None::<Arc<str>>));
        for ((name, tags), series) in &tagged.series {
            if last.0 != &**name {
                let shown = tagged_prometheus_name(name);
                last = (name, wanted(&shown).then(|| shown.into()));
            }
            if let Some(shown) = &last.1 {
                found.push((Arc::clone(shown), Arc::clone(tags), series.metric.clone()));
            }
        }
        (tagged.generation, found)
    }

    pub(crate) fn counter(&self, scope: &Scope, name: impl Into<Name>) -> Counter {
        match self.metric(scope, name.into(), || Metric::Counter(Counter::default())) {
            Metric::Counter(counter) => counter,
            Metric::Gauge(_) | Metric::Histogram(_) => unreachable!("a name is of one kind everywhere"),
        }
    }

    pub(crate) fn gauge(&self, scope: &Scope, name: &'static str) -> Gauge {
        match self.metric(scope, name.into(), || Metric::Gauge(Gauge::default())) {
            Metric::Gauge(gauge) => gauge,
            Metric::Counter(_) | Metric::Histogram(_) => unreachable!("{name} is a gauge everywhere"),
        }
    }

    pub(crate) fn histogram(&self, scope: &Scope, name: &'static str) -> Histogram {
        match self.metric(scope, name.into(), || Metric::Histogram(Histogram::default())) {
            Metric::Histogram(histogram) => histogram,
            Metric::Counter(_) | Metric::Gauge(_) => unreachable!("{name} is a histogram everywhere"),
        }
    }

    fn all(&self) -> Vec<((Name, Scope), Metric)> {
        lock(&self.0.own).iter().map(|(key, metric)| (key.clone(), metric.clone())).collect()
    }

    fn all_tagged(&self) -> Vec<((Arc<str>, Tags), Metric)> {
        let now = Instant::now();
        let mut tagged = lock(&self.0.tagged);
        tagged.forget(now);
        tagged.series.iter().map(|(key, series)| (key.clone(), series.metric.clone())).collect()
    }

    /// Everything under Envoy's names: `cluster.up.upstream_rq_total`.
    pub(crate) fn named(&self) -> Vec<(String, Metric)> {
        let own = self.all().into_iter().map(|((name, scope), metric)| (format!("{}.{name}", scope.prefix()), metric));
        let tagged = self.all_tagged().into_iter().map(|((name, tags), metric)| (tagged_name(&name, &tags), metric));
        own.chain(tagged).collect()
    }

    /// Prometheus' text format, named as Envoy names it: `envoy_cluster_upstream_rq_total{envoy_cluster_name="up"}`.
    /// Only what is `wanted` by name and value.
    pub(crate) fn prometheus(&self, wanted: impl Fn(&str, &Metric) -> bool) -> String {
        let mut text = String::new();
        let mut last = String::new();
        // What Envoy makes of a name may differ from scope to scope; a name's numbers stand together.
        let mut own: Vec<_> = self
            .all()
            .into_iter()
            .filter(|((name, scope), metric)| wanted(&format!("{}.{name}", scope.prefix()), metric))
            .map(|((name, scope), metric)| (scope.prometheus(&name), metric))
            .collect();
        own.sort_by(|((one, _), _), ((other, _), _)| one.cmp(other));
        let mut write = |name: String, tags: String, metric: &Metric| {
            if name != last {
                let _ = writeln!(text, "# TYPE {name} {}", metric.kind());
                last.clone_from(&name);
            }
            write_metric(&mut text, &name, &tags, metric);
        };
        for ((name, tags), metric) in own {
            write(name, tags, &metric);
        }
        for ((name, tags), metric) in self.all_tagged() {
            if !wanted(&tagged_name(&name, &tags), &metric) {
                continue;
            }
            let tags: Vec<String> =
                tags.iter().map(|(key, value)| prometheus_tag(&prometheus_name(key), value)).collect();
            write(tagged_prometheus_name(&name), tags.join(","), &metric);
        }
        text
    }
}

/// What Istio's metrics stand under, so that they have their own names for Prometheus (Envoy's `CustomStatNamespaces`).
const CUSTOM_NAMESPACE: &str = "istiocustom.";

pub(crate) fn tagged_prometheus_name(name: &str) -> String {
    match name.strip_prefix(CUSTOM_NAMESPACE) {
        Some(own) => prometheus_name(own),
        None => format!("envoy_{}", prometheus_name(name)),
    }
}

/// A name with its tags, as `/stats` shows it.
fn tagged_name(name: &str, tags: &Tags) -> String {
    let tags: String = tags.iter().map(|(name, value)| format!(".{name}.{value}")).collect();
    format!("{name}{tags}")
}

/// Envoy's `sanitizeName`: what Prometheus has no room for is an underscore.
fn prometheus_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

fn prometheus_tag(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

fn write_metric(text: &mut String, name: &str, tag: &str, metric: &Metric) {
    // Writing to a String does not fail.
    let _ = match metric {
        Metric::Counter(counter) => writeln!(text, "{name}{{{tag}}} {}", counter.get()),
        Metric::Gauge(gauge) => writeln!(text, "{name}{{{tag}}} {}", gauge.get()),
        Metric::Histogram(histogram) => {
            let comma = if tag.is_empty() { "" } else { "," };
            let mut count = 0;
            for (bound, cell) in BUCKETS.iter().zip(&histogram.0.counts) {
                count += cell.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_bucket{{{tag}{comma}le=\"{bound}\"}} {count}");
            }
            count += histogram.0.counts[BUCKETS.len()].load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{{tag}{comma}le=\"+Inf\"}} {count}");
            #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
            let sum = histogram.0.sum.load(Ordering::Relaxed) as f64 / 1000.0;
            writeln!(text, "{name}_sum{{{tag}}} {sum}\n{name}_count{{{tag}}} {count}")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_envoys_in_both_forms() {
        let registry = Registry::default();
        let scope = Scope::Cluster("outbound|80||a".into());
        registry.counter(&scope, "upstream_rq_total").add(3);
        registry.counter(&scope, "upstream_rq_total").inc();
        registry.histogram(&scope, "upstream_rq_time").record(7.0);
        let names: Vec<_> = registry.named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cluster.outbound|80||a.upstream_rq_time", "cluster.outbound|80||a.upstream_rq_total"]);
        let route = Scope::Route("a.test:80".into(), "checkout".into());
        RouteStats::new(&registry, &route).count(404, 1.0);
        let names: Vec<_> = registry.named().into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"vhost.a.test:80.route.checkout.upstream_rq_4xx".to_owned()), "{names:?}");
        let text = registry.prometheus(|_, _| true);
        let tags = "envoy_virtual_host=\"a.test:80\",envoy_route=\"checkout\"";
        assert!(text.contains(&format!("envoy_vhost_route_upstream_rq_total{{{tags}}} 1\n")), "{text}");
        assert!(text.contains("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"outbound|80||a\"} 4\n"), "{text}");
        assert!(
            text.contains("envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||a\",le=\"10\"} 1\n")
        );
    }

    #[test]
    fn quantiles_lie_in_the_bucket_of_their_rank() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary().count, 0);
        (0..10).for_each(|_| histogram.record(7.0));
        (0..10).for_each(|_| histogram.record(70.0));
        let summary = histogram.summary();
        assert_eq!((summary.quantile(0.0), summary.quantile(0.5), summary.quantile(1.0)), (5.0, 10.0, 100.0));
        histogram.record(f64::from(u32::MAX));
        assert_eq!(histogram.summary().quantile(1.0), 3_600_000.0);
    }

    #[test]
    fn a_gauge_falls_when_its_guard_goes() {
        let gauge = Registry::default().gauge(&Scope::Server, "connections");
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}

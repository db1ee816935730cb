//! Istio's standard metrics (its reference, "Istio Standard Metrics") as loggers.

use accesslog::access_log::ConfigType;
use accesslog::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as stats;
use envoy_types::pb::google::protobuf::UInt64Value;
use lateen_api::telemetry::settings::IstioMetric;
use stats::config::{Counter, Histogram, Stat, Tag, histogram::Unit};

use super::Side;
use super::labels::{self, Label};
use super::overrides::{self, Overrides};
use crate::proto::strings;
use crate::view::View;
use crate::wire;

/// The namespace of Istio's proxy for its own metrics (`CustomStatNamespaces`): for Prometheus it is not part of their names.
const NAMESPACE: &str = "istiocustom";

/// Of an HTTP connection manager.
pub(super) fn http(view: &View<'_>, side: Side<'_>) -> Vec<accesslog::AccessLog> {
    let Some(overrides) = &overrides::of(view, side) else { return Vec::new() };
    let peers = labels::of_peers(side, true);
    let whole: Vec<Label> = [peers.clone(), labels::of_answer(), labels::of_outcome(side)].concat();
    let mut requests = Metrics::new(overrides);
    requests.count(IstioMetric::RequestCount, &whole, Amount::One);
    requests.measure(IstioMetric::RequestDuration, &whole, Unit::Milliseconds, "%DURATION%");
    requests.measure(IstioMetric::RequestSize, &whole, Unit::Bytes, "%BYTES_RECEIVED%");
    requests.measure(IstioMetric::ResponseSize, &whole, Unit::Bytes, "%BYTES_SENT%");
    let mut messages = Metrics::new(overrides);
    let passed =
        |which: &str| Amount::Of(labels::cel(&format!("filter_state['envoy.filters.http.grpc_stats'].{which}")));
    messages.count(IstioMetric::GrpcRequestMessages, &peers, passed("request_message_count"));
    messages.count(IstioMetric::GrpcResponseMessages, &peers, passed("response_message_count"));
    requests.logger(None).into_iter().chain(messages.logger(Some(of_grpc()))).collect()
}

/// Of a TCP proxy.
pub(super) fn tcp(view: &View<'_>, side: Side<'_>) -> Vec<accesslog::AccessLog> {
    let Some(overrides) = &overrides::of(view, side) else { return Vec::new() };
    let mut whole: Vec<Label> = labels::of_peers(side, false);
    whole.push(("request_protocol", labels::literal("tcp")));
    whole.extend(labels::of_outcome(side));
    let mut opened = Metrics::new(overrides);
    opened.count(IstioMetric::TcpOpenedConnections, &whole, Amount::One);
    let mut closed = Metrics::new(overrides);
    closed.count(IstioMetric::TcpClosedConnections, &whole, Amount::One);
    closed.count(IstioMetric::TcpSentBytes, &whole, Amount::Of("%BYTES_SENT%".to_owned()));
    closed.count(IstioMetric::TcpReceivedBytes, &whole, Amount::Of("%BYTES_RECEIVED%".to_owned()));
    let opened = opened.logger(Some(opened_or_never()));
    opened.into_iter().chain(closed.logger(Some(when(AccessLogType::TcpConnectionEnd)))).collect()
}

/// Has a logger tell of connections that are over, as far as it tells of any, and of nothing else.
pub(super) fn at_the_end(log: &mut accesslog::AccessLog) {
    let ended = when(AccessLogType::TcpConnectionEnd);
    log.filter = Some(match log.filter.take() {
        None => ended,
        Some(own) => accesslog::AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::AndFilter(accesslog::AndFilter { filters: vec![ended, own] })),
        },
    });
}

/// When the upstream connection is there; or at the end, of a connection for which there never was one, as its flags say.
fn opened_or_never() -> accesslog::AccessLogFilter {
    let flags = ["UF", "UH", "NR", "NC", "UO", "URX"].map(str::to_owned).to_vec();
    let never = accesslog::AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(accesslog::ResponseFlagFilter { flags })),
    };
    let ended = accesslog::AndFilter { filters: vec![when(AccessLogType::TcpConnectionEnd), never] };
    let ended = accesslog::AccessLogFilter { filter_specifier: Some(FilterSpecifier::AndFilter(ended)) };
    let either = accesslog::OrFilter { filters: vec![when(AccessLogType::TcpUpstreamConnected), ended] };
    accesslog::AccessLogFilter { filter_specifier: Some(FilterSpecifier::OrFilter(either)) }
}

fn when(time: AccessLogType) -> accesslog::AccessLogFilter {
    let filter = accesslog::LogTypeFilter { types: vec![time as i32], exclude: false };
    accesslog::AccessLogFilter { filter_specifier: Some(FilterSpecifier::LogTypeFilter(filter)) }
}

fn of_grpc() -> accesslog::AccessLogFilter {
    let header = route::HeaderMatcher {
        name: "content-type".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(strings::prefix(
            "application/grpc",
        ))),
        ..route::HeaderMatcher::default()
    };
    let filter = accesslog::HeaderFilter { header: Some(header) };
    accesslog::AccessLogFilter { filter_specifier: Some(FilterSpecifier::HeaderFilter(filter)) }
}

/// Name of a metric without its prefix; none of the word for all.
fn name(metric: IstioMetric) -> &'static str {
    match metric {
        IstioMetric::AllMetrics => "",
        IstioMetric::RequestCount => "requests_total",
        IstioMetric::RequestDuration => "request_duration_milliseconds",
        IstioMetric::RequestSize => "request_bytes",
        IstioMetric::ResponseSize => "response_bytes",
        IstioMetric::TcpOpenedConnections => "tcp_connections_opened_total",
        IstioMetric::TcpClosedConnections => "tcp_connections_closed_total",
        IstioMetric::TcpSentBytes => "tcp_sent_bytes_total",
        IstioMetric::TcpReceivedBytes => "tcp_received_bytes_total",
        IstioMetric::GrpcRequestMessages => "request_messages_total",
        IstioMetric::GrpcResponseMessages => "response_messages_total",
    }
}

/// What a record adds to a counter.
enum Amount {
    One,
    Of(String),
}

/// The metrics of one logger.
struct Metrics<'a> {
    overrides: &'a Overrides,
    counters: Vec<Counter>,
    histograms: Vec<Histogram>,
}

impl<'a> Metrics<'a> {
    fn new(overrides: &'a Overrides) -> Self {
        Self { overrides, counters: Vec::new(), histograms: Vec::new() }
    }

    fn stat(&self, metric: IstioMetric, labels: &[Label]) -> Option<Stat> {
        let tags = self.overrides.labels(metric, labels)?;
        let tag = |(name, value_format)| Tag { name, value_format, rules: None };
        Some(Stat { name: format!("istio_{}", name(metric)), tags: tags.into_iter().map(tag).collect() })
    }

    fn count(&mut self, metric: IstioMetric, labels: &[Label], amount: Amount) {
        let Some(stat) = self.stat(metric, labels) else { return };
        let (value_format, value_fixed) = match amount {
            Amount::One => (String::new(), Some(UInt64Value { value: 1 })),
            Amount::Of(format) => (format, None),
        };
        self.counters.push(Counter { stat: Some(stat), value_format, value_fixed });
    }

    fn measure(&mut self, metric: IstioMetric, labels: &[Label], unit: Unit, format: &str) {
        let Some(stat) = self.stat(metric, labels) else { return };
        self.histograms.push(Histogram { stat: Some(stat), unit: unit as i32, value_format: format.to_owned() });
    }

    /// None where nothing is left to count.
    #[expect(deprecated, reason = "what takes its place is not in Envoy's releases yet")]
    fn logger(self, filter: Option<accesslog::AccessLogFilter>) -> Option<accesslog::AccessLog> {
        if self.counters.is_empty() && self.histograms.is_empty() {
            return None;
        }
        let config = stats::Config {
            stat_prefix: NAMESPACE.to_owned(),
            counters: self.counters,
            histograms: self.histograms,
            ..stats::Config::default()
        };
        Some(accesslog::AccessLog {
            name: "envoy.access_loggers.stats".to_owned(),
            filter,
            config_type: Some(ConfigType::TypedConfig(wire::pack(&config))),
        })
    }
}

//! A connection manager's tracer on one worker: begins spans, and hands them to the exporter when they have ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lateen_engine::config::tracing::{OpenTelemetry, Provider, Tracing, Zipkin};
use lateen_engine::message::RequestHead;

use super::context::{self, Carrier, Context, Said, TraceId};
use super::decision::{self, Reason};
use super::span::{Finished, Kind};
use super::tags::{Custom, Tags};
use super::{otlp, zipkin};
use crate::telemetry::export::{Counted, Exporter, Framing, Limits};
use crate::telemetry::stats::{Counter, Registry, Scope};
use crate::telemetry::stream_info::StreamInfo;
use crate::worker::{Shared, Worker};

/// How long a span waits for others.
const INTERVAL: Duration = Duration::from_secs(1);
/// So many bytes of spans are sent without waiting.
const ENOUGH: usize = 64 << 10;
/// So many spans for Zipkin wait at most.
const MOST_FOR_ZIPKIN: usize = 1024;

/// The proxy, as spans tell of it: its node.
#[derive(Debug, Default)]
pub(crate) struct NodeNames {
    pub id: String,
    pub cluster: String,
    pub zone: String,
}

#[derive(Debug)]
pub(crate) struct Tracer {
    provider: Option<Arc<Provider>>,
    exporter: Option<Rc<Exporter>>,
    custom: Vec<Custom>,
    node: Arc<NodeNames>,
    reasons: Reasons,
}

/// How many requests are traced, and why.
#[derive(Debug)]
struct Reasons {
    client_enabled: Counter,
    random_sampling: Counter,
    service_forced: Counter,
    not_traceable: Counter,
}

impl Tracer {
    pub(crate) fn new(config: &Tracing, stat_prefix: &Arc<str>, worker: &Worker) -> Self {
        let Shared { stats, node, .. } = &*worker.shared;
        let scope = Scope::Http(Arc::clone(stat_prefix));
        let counter = |name: &str| stats.counter(&scope, format!("tracing.{name}"));
        let exporter = |provider: &Arc<Provider>| worker.span_exporters.of(provider, || exporter(provider, stats));
        Self {
            provider: config.provider.clone(),
            exporter: config.provider.as_ref().map(exporter),
            custom: config.tags.iter().map(Custom::new).collect(),
            node: Arc::clone(node),
            reasons: Reasons {
                client_enabled: counter("client_enabled"),
                random_sampling: counter("random_sampling"),
                service_forced: counter("service_forced"),
                not_traceable: counter("not_traceable"),
            },
        }
    }

    /// Decides whether a request is traced, and counts it.
    pub(crate) fn decide(
        &self,
        config: &Tracing,
        ids: lateen_engine::config::tracing::RequestIds,
        head: &mut RequestHead,
        random: u64,
    ) -> bool {
        let reason = decision::decide(config, ids, &mut head.headers, random);
        match reason {
            Reason::ClientForced => &self.reasons.client_enabled,
            Reason::ServiceForced => &self.reasons.service_forced,
            Reason::Sampling => &self.reasons.random_sampling,
            Reason::NotTraceable => &self.reasons.not_traceable,
        }
        .inc();
        reason.is_traced()
    }

    /// The place of a request's span in its trace; none if what it says of that is not understood.
    pub(super) fn start(&self, config: &Tracing, is_traced: bool, head: &RequestHead) -> Option<(Context, Kind)> {
        // Where attempts have spans, the proxy is a hop of its own: server on one side, client on the other.
        let kind = if config.egress && !config.spawn_upstream_span { Kind::Client } else { Kind::Server };
        let context = match self.provider.as_deref()? {
            Provider::OpenTelemetry(_) => match context::of_w3c(&head.headers).ok()? {
                // As in Envoy, what the parent does not record is not recorded, nor what is not to be traced here.
                Some((said, recorded)) => Context::below(said, recorded && is_traced, Carrier::W3c),
                None => Context::root(TraceId::Wide(rand::random()), rand::random(), is_traced, Carrier::W3c),
            },
            Provider::Zipkin(zipkin) => of_zipkin(zipkin, kind, is_traced, head)?,
        };
        Some((context, kind))
    }

    /// What a span is called to which nothing gives a name.
    pub(super) fn name(&self, config: &Tracing, head: &RequestHead) -> String {
        match self.provider.as_deref() {
            Some(Provider::Zipkin(_)) => head.host().to_owned(),
            _ if config.egress => format!("egress {}", head.host()),
            _ => "ingress".to_owned(),
        }
    }

    /// With what all spans of requests say.
    pub(super) fn own_tags(&self) -> Tags {
        let mut tags = Tags::default();
        tags.set("node_id", &*self.node.id);
        tags.set("zone", &*self.node.zone);
        tags
    }

    pub(super) fn set_custom(&self, info: &StreamInfo, tags: &mut Tags) {
        for custom in &self.custom {
            custom.set(info, tags);
        }
    }

    pub(super) fn encode(&self, span: &Finished<'_>) -> Vec<u8> {
        match self.provider.as_deref() {
            Some(Provider::Zipkin(zipkin)) => zipkin::span(span, zipkin.shared_spans, &self.node),
            Some(Provider::OpenTelemetry(_)) | None => otlp::span(span),
        }
    }

    /// Hands a span that has ended to the exporter.
    pub(crate) fn send(&self, span: &[u8], worker: &Rc<Worker>) {
        if let Some(exporter) = &self.exporter {
            exporter.push(worker, |out| out.extend_from_slice(span));
        }
    }
}

impl Context {
    fn root(trace: TraceId, span: u64, sampled: bool, carrier: Carrier) -> Self {
        Self { trace, span, parent: None, sampled, is_remote: false, state: String::new(), carrier }
    }

    /// Of a child of what the request says.
    fn below(said: Said, sampled: bool, carrier: Carrier) -> Self {
        let Said { trace, span, state, .. } = said;
        Self { trace, span: rand::random(), parent: Some(span), sampled, is_remote: true, state, carrier }
    }
}

fn of_zipkin(config: &Zipkin, kind: Kind, is_traced: bool, head: &RequestHead) -> Option<Context> {
    let carrier = context::carrier(&head.headers, config.w3c);
    let (mut said, mut recorded) = context::of_b3(&head.headers).ok()?;
    if config.w3c && said.is_none() && recorded.is_none()
        // What is of no use here may be of use to others.
        && let Ok(Some((of_w3c, is_recorded))) = context::of_w3c(&head.headers)
    {
        said = Some(Said { state: String::new(), ..of_w3c });
        recorded = Some(is_recorded);
    }
    // As in Zipkin's own tracers, who comes first decides for all.
    let sampled = recorded.unwrap_or(is_traced);
    Some(match said {
        Some(Said { trace, span, parent, state }) if kind == Kind::Server && config.shared_spans => {
            Context { trace, span, parent, sampled, is_remote: true, state, carrier }
        }
        Some(said) => Context::below(said, sampled, carrier),
        None => {
            // The first span has the lower half of the trace's id.
            let span: u64 = rand::random();
            let high: u64 = rand::random();
            let trace = if config.wide_ids {
                TraceId::Wide(u128::from(high) << 64 | u128::from(span))
            } else {
                TraceId::Narrow(span)
            };
            Context::root(trace, span, sampled, carrier)
        }
    })
}

fn exporter(provider: &Provider, stats: &Registry) -> Rc<Exporter> {
    match provider {
        Provider::OpenTelemetry(config) => {
            let OpenTelemetry { collector, most_waiting, .. } = config;
            let limits = Limits { most: (*most_waiting).max(1), enough_bytes: ENOUGH, interval: INTERVAL };
            let counted = Counted::spans(stats, "opentelemetry");
            Exporter::new(collector.clone(), otlp::EXPORT_SPANS, otlp::framing(config), limits, counted)
        }
        Provider::Zipkin(config) => {
            let collector = lateen_engine::config::tracing::Collector::Http(config.collector.clone());
            let limits = Limits { most: MOST_FOR_ZIPKIN, enough_bytes: ENOUGH, interval: INTERVAL };
            Exporter::new(collector, "", Framing::Json, limits, Counted::spans(stats, "zipkin"))
        }
    }
}

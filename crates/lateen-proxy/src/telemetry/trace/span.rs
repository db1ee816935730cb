//! The spans of one request: its own, and those of its attempts where these have some.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderName, HeaderValue};
use lateen_engine::config::tracing::Tracing;
use lateen_engine::flags::ResponseFlags;
use lateen_engine::message::{Headers, RequestHead};
use lateen_engine::route::Decorator;

use super::context::Context;
use super::tags::{Tags, filled};
use super::tracer::Tracer;
use crate::telemetry::stream_info::StreamInfo;

const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// OTLP's numbers of span kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server = 2,
    Client = 3,
}

/// What is to be told of a request under way.
#[derive(Debug)]
pub(crate) struct Trace {
    is_traced: bool,
    /// None: what the request says of its trace is not understood, or nobody collects spans.
    span: Option<Span>,
    /// What the answer tells the client that the span is called.
    decorated: Option<HeaderValue>,
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Span {
    context: Context,
    kind: Kind,
    /// Only of a request that is recorded.
    name: String,
}

/// The span of an attempt.
#[derive(Debug)]
struct Attempt {
    context: Context,
    name: String,
    started: SystemTime,
    since: Instant,
    number: u32,
}

/// How an attempt ended.
pub(crate) struct Ended<'a> {
    /// 0 without an answer.
    pub status: u16,
    pub flags: ResponseFlags,
    /// Why there is no answer.
    pub failure: Option<&'a str>,
    /// Nobody waits for it any more: it took too long, or another one is asked for.
    pub is_canceled: bool,
    /// The answer's head, and its trailers if they have come.
    pub answer: [Option<&'a Headers>; 2],
}

/// A span as collectors are told of it.
pub(super) struct Finished<'a> {
    pub context: &'a Context,
    pub kind: Kind,
    pub name: &'a str,
    pub started: SystemTime,
    pub duration: Duration,
    pub status: u16,
    pub tags: Tags,
}

impl Trace {
    /// Begins a request's span, and names it (Envoy's `traceRequest`).
    pub(crate) fn begin(
        tracer: &Tracer,
        config: &Tracing,
        is_traced: bool,
        decorator: Option<&Decorator>,
        head: &mut RequestHead,
        info: &StreamInfo,
    ) -> Box<Self> {
        let span = tracer.start(config, is_traced, head);
        let mut decorated = None;
        let name = match &config.operation {
            // It goes before all others, which are left as they are.
            Some(format) => Some(filled(format, info)).filter(|name| !name.is_empty()),
            None => operation(config, decorator, head, &mut decorated),
        };
        let span = span.map(|(context, kind)| {
            let name = if context.sampled { name.unwrap_or_else(|| tracer.name(config, head)) } else { String::new() };
            Span { context, kind, name }
        });
        Box::new(Self { is_traced, span, decorated, attempt: None })
    }

    /// Whether the request is to be traced, as its id says.
    pub(crate) fn is_traced(&self) -> bool {
        self.is_traced
    }

    /// The place of the request's span.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.span.as_ref().map(|span| &span.context)
    }

    /// Tells an upstream of the trace, and begins the span of the attempt.
    pub(crate) fn attempt(&mut self, config: &Tracing, head: &mut RequestHead, info: &StreamInfo) {
        let Some(Span { context, .. }) = &self.span else { return };
        if !config.spawn_upstream_span {
            if config.propagates {
                context.inject(&mut head.headers);
            }
            return;
        }
        let context = Context { span: rand::random(), parent: Some(context.span), is_remote: false, ..context.clone() };
        if config.propagates {
            context.inject(&mut head.headers);
        }
        if context.sampled {
            let given = config.upstream_operation.as_ref().map(|format| filled(format, info));
            let name = given
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| format!("router {} egress", info.cluster.as_deref().unwrap_or_default()));
            let (started, since) = (SystemTime::now(), Instant::now());
            self.attempt = Some(Attempt { context, name, started, since, number: info.attempts });
        }
    }

    /// Ends the span of an attempt, if it has one. The request's headers are in the record.
    pub(crate) fn end_attempt(&mut self, tracer: &Tracer, ended: &Ended<'_>, info: &mut StreamInfo) -> Option<Vec<u8>> {
        let Attempt { context, name, started, since, number } = self.attempt.take()?;
        let mut tags = Tags::default();
        if number > 1 {
            tags.set("retry.count", (number - 1).to_string());
        }
        if let Some(reason) = ended.failure {
            tags.set("error", "true");
            tags.set("error.reason", reason);
        }
        if ended.is_canceled {
            tags.set("canceled", "true");
        }
        tags.attempt(info);
        tags.common(info, ended.status, ended.flags);
        for headers in ended.answer.into_iter().flatten() {
            tags.grpc_answer(headers);
        }
        // To tags of the configuration, the attempt is the request; as in Envoy, one whose answer nobody gets has no status.
        let of_request = (info.status, info.flags);
        (info.status, info.flags) = (if ended.is_canceled { 0 } else { ended.status }, ended.flags);
        tracer.set_custom(info, &mut tags);
        (info.status, info.flags) = of_request;
        let duration = since.elapsed();
        let kind = Kind::Client;
        Some(tracer.encode(&Finished {
            context: &context,
            kind,
            name: &name,
            started,
            duration,
            status: ended.status,
            tags,
        }))
    }

    /// Ends the request's span; None if it is not recorded.
    pub(crate) fn end(self, tracer: &Tracer, config: &Tracing, info: &StreamInfo) -> Option<Vec<u8>> {
        let Span { context, kind, name } = self.span.filter(|span| span.context.sampled)?;
        let mut tags = tracer.own_tags();
        tags.request(info, config.max_path_length);
        tags.common(info, info.status, info.flags);
        tags.grpc_answer(&info.response_headers);
        tags.grpc_answer(&info.trailers);
        tracer.set_custom(info, &mut tags);
        let (started, duration) = (info.start_time, info.duration);
        Some(tracer.encode(&Finished {
            context: &context,
            kind,
            name: &name,
            started,
            duration,
            status: info.status,
            tags,
        }))
    }

    /// The client learns what the span is called, or says it: by a header that goes no further.
    pub(crate) fn on_answer(&mut self, config: &Tracing, headers: &mut Headers) {
        if config.operation.is_some() {
            return;
        }
        if !config.egress {
            if let Some(operation) = self.decorated.take() {
                headers.set(OPERATION, operation);
            }
            return;
        }
        if let Some(operation) = headers.get(&OPERATION) {
            if let Some(span) = self.span.as_mut().filter(|_| !operation.is_empty()) {
                span.name = String::from_utf8_lossy(operation.as_bytes()).into_owned();
            }
            headers.remove(&OPERATION);
        }
    }
}

/// What a route, or for what comes in the client, calls the request. `decorated`: what the client is to be told.
fn operation(
    config: &Tracing,
    decorator: Option<&Decorator>,
    head: &mut RequestHead,
    decorated: &mut Option<HeaderValue>,
) -> Option<String> {
    let decorator = decorator.filter(|decorator| !decorator.operation.is_empty());
    let of_route = decorator.and_then(|decorator| HeaderValue::from_str(&decorator.operation).ok());
    let mut name = of_route.clone();
    let told = of_route.filter(|_| decorator.is_some_and(|decorator| decorator.propagates));
    if config.egress {
        // The server's span is called the same.
        if let Some(operation) = told {
            head.headers.set(OPERATION, operation);
        }
    } else {
        *decorated = told;
        if let Some(given) = head.headers.get(&OPERATION).cloned() {
            if !given.is_empty() {
                name = Some(given);
                *decorated = None;
            }
            head.headers.remove(&OPERATION);
        }
    }
    name.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
}

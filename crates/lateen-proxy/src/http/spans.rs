//! A request's spans, along its way.

use lateen_engine::flags::ResponseFlags;
use lateen_engine::message::{Headers, RequestHead};
use lateen_engine::route::Route;

use super::request::Exchange;
use crate::telemetry::failure::{Failure, FailureKind};
use crate::telemetry::trace::{Ended, Trace};
use crate::upstream::attempt::Answer;

impl Exchange<'_> {
    /// Decides whether the request is traced, and begins its span.
    pub(super) fn begin_trace(&mut self, route: Option<&Route>) {
        let manager = &self.context.manager;
        let (Some(tracer), Some(config)) = (&self.context.state.tracer, &manager.tracing) else { return };
        let is_traced = tracer.decide(config, manager.request_ids, &mut self.head, self.random);
        let decorator = route.and_then(|route| route.decorator.as_ref());
        // A format reads the request's headers from the record.
        if config.operation.is_some() {
            self.info.request_headers = self.head.headers.clone();
        }
        self.info.trace = Some(Trace::begin(tracer, config, is_traced, decorator, &mut self.head, &self.info));
        self.info.request_headers = Headers::default();
    }

    /// Tells the upstream of the trace.
    pub(super) fn begin_attempt(&mut self, head: &mut RequestHead) {
        let Some(config) = &self.context.manager.tracing else { return };
        if let Some(mut trace) = self.info.trace.take() {
            trace.attempt(config, head, &self.info);
            self.info.trace = Some(trace);
        }
    }

    /// An attempt has ended, and will not be the request's answer, or there was none. `head`: of the request.
    pub(super) fn end_attempt(&mut self, head: &mut RequestHead, result: Result<&Answer, &Failure>) {
        let Some(tracer) = &self.context.state.tracer else { return };
        let Some(mut trace) = self.info.trace.take() else { return };
        let mut flags = ResponseFlags::default();
        let ended = match result {
            Ok(answer) => Ended {
                status: answer.head.status.as_u16(),
                flags,
                failure: None,
                is_canceled: true,
                answer: [Some(&answer.head.headers), None],
            },
            Err(failure) => {
                flags.insert(failure.flag());
                let is_canceled = failure.kind == FailureKind::PerTryTimeout;
                let reason = Some(failure.reason()).filter(|_| !is_canceled);
                Ended { status: 0, flags, failure: reason, is_canceled, answer: [None, None] }
            }
        };
        // Tags read the request's headers from the record.
        std::mem::swap(&mut self.info.request_headers, &mut head.headers);
        let span = trace.end_attempt(tracer, &ended, &mut self.info);
        std::mem::swap(&mut self.info.request_headers, &mut head.headers);
        self.info.trace = Some(trace);
        if let Some(span) = span {
            tracer.send(&span, &self.context.worker);
        }
    }

    /// What the answer tells the client of the span, and the span of the answer.
    pub(super) fn trace_answer(&mut self, headers: &mut Headers) {
        if let (Some(config), Some(trace)) = (&self.context.manager.tracing, &mut self.info.trace) {
            trace.on_answer(config, headers);
        }
    }

    /// Ends the request's spans, once its record is closed.
    pub(super) fn end_trace(&mut self) {
        let (Some(tracer), Some(config)) = (&self.context.state.tracer, &self.context.manager.tracing) else { return };
        let Some(mut trace) = self.info.trace.take() else { return };
        let info = &mut self.info;
        let (headers, trailers) = (std::mem::take(&mut info.response_headers), std::mem::take(&mut info.trailers));
        // What there is of an answer may be the proxy's own.
        let ended = if info.response_start.is_some() {
            let answer = [Some(&headers), Some(&trailers)];
            Ended { status: info.status, flags: info.flags, failure: None, is_canceled: false, answer }
        } else {
            let flags = ResponseFlags::default();
            Ended { status: 0, flags, failure: None, is_canceled: true, answer: [None, None] }
        };
        let attempt = trace.end_attempt(tracer, &ended, info);
        (info.response_headers, info.trailers) = (headers, trailers);
        for span in attempt.into_iter().chain(trace.end(tracer, config, info)) {
            tracer.send(&span, &self.context.worker);
        }
    }
}

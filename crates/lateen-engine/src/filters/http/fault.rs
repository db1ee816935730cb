//! `envoy.filters.http.fault`: delays and errors on purpose.

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as proto;
use http::StatusCode;
use proto::fault_abort::ErrorType;

use super::{Share, Step, fraction};
use crate::config::error::{At, refuse};
use crate::config::scalar::duration;
use crate::flags::{LocalReply, ResponseFlag};
use crate::matching::HeaderMatcher;
use crate::message::RequestHead;

#[derive(Debug)]
pub struct Fault {
    delay: Option<(Duration, Share)>,
    abort: Option<(Abort, Share)>,
    /// Only for requests that have these.
    headers: Vec<HeaderMatcher>,
}

#[derive(Clone, Copy, Debug)]
enum Abort {
    Http(StatusCode),
    Grpc(u16),
}

/// What may happen to a request.
#[derive(Debug, Default)]
pub struct Planned {
    /// It waits so long, in such a share of cases.
    pub delay: Option<(Duration, Share)>,
    /// It is answered, in such a share of cases, which are drawn independently.
    pub abort: Option<(LocalReply, Share)>,
}

impl Fault {
    pub(crate) fn from_xds(config: &proto::HttpFault, at: &At) -> Option<Self> {
        refuse!(at, config;
            upstream_cluster, downstream_nodes, max_active_faults, response_rate_limit, delay_percent_runtime,
            abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime, abort_grpc_status_runtime,
            max_active_faults_runtime, response_rate_limit_percent_runtime, filter_metadata);
        let matcher = |(index, matcher)| HeaderMatcher::from_xds(matcher, &at.index("headers", index));
        let share = |percent: Option<&_>| percent.map_or(Share::NONE, fraction);
        let delay = match &config.delay {
            None => None,
            Some(delay) => {
                let at = at.field("delay");
                match delay.fault_delay_secifier.as_ref() {
                    Some(FaultDelaySecifier::FixedDelay(fixed)) => {
                        Some((duration(Some(fixed), &at.field("fixed_delay"))?, share(delay.percentage.as_ref())))
                    }
                    _ => {
                        at.error("must be a fixed_delay");
                        None
                    }
                }
            }
        };
        let abort = match &config.abort {
            None => None,
            Some(abort) => Some((error(abort, &at.field("abort"))?, share(abort.percentage.as_ref()))),
        };
        Some(Self { delay, abort, headers: config.headers.iter().enumerate().map(matcher).collect::<Option<_>>()? })
    }

    fn concerns(&self, head: &RequestHead) -> bool {
        self.headers.iter().all(|matcher| matcher.matches(head))
    }

    /// What may happen to this request, before anything is drawn.
    pub fn planned(&self, head: &RequestHead) -> Planned {
        if !self.concerns(head) {
            return Planned::default();
        }
        Planned {
            delay: self.delay.filter(|(_, share)| !share.is_never()),
            abort: (self.abort).filter(|(_, share)| !share.is_never()).map(|(abort, share)| (abort.reply(), share)),
        }
    }

    pub(super) fn on_request(&self, head: &RequestHead, random: u64) -> Step {
        if !self.concerns(head) {
            return Step::Continue;
        }
        // Delay and abort are drawn independently of each other.
        let delay = self.delay.filter(|(_, share)| share.draws(random)).map(|(time, _)| time);
        let abort = self
            .abort
            .filter(|(_, share)| share.draws(random.rotate_left(32)))
            .map(|(abort, _)| Box::new(abort.reply()));
        match (delay, abort) {
            (Some(time), reply) => Step::Delay(time, reply),
            (None, Some(reply)) => Step::Reply(reply),
            (None, None) => Step::Continue,
        }
    }
}

fn error(abort: &proto::FaultAbort, at: &At) -> Option<Abort> {
    match abort.error_type.as_ref() {
        Some(ErrorType::HttpStatus(code)) => {
            let status = u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            match status.filter(|status| (200..600).contains(&status.as_u16())) {
                Some(status) => Some(Abort::Http(status)),
                None => {
                    at.field("http_status").error("must be from 200 to 599");
                    None
                }
            }
        }
        Some(ErrorType::GrpcStatus(code)) => Some(Abort::Grpc(u16::try_from(*code).ok()?)),
        Some(ErrorType::HeaderAbort(_)) => {
            at.refuse_if("header_abort", true);
            None
        }
        None => {
            at.error("needs http_status or grpc_status");
            None
        }
    }
}

impl Abort {
    fn reply(self) -> LocalReply {
        let (status, grpc) = match self {
            Self::Http(status) => (status, None),
            Self::Grpc(code) => (StatusCode::OK, Some(code)),
        };
        let mut reply =
            LocalReply::new(status, "fault filter abort", "fault_filter_abort").flag(ResponseFlag::FaultInjected);
        reply.grpc_status = grpc;
        reply
    }
}

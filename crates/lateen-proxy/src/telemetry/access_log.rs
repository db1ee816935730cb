//! A listener's access loggers on one worker: lines for files, records for collectors, numbers for statistics.

use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use lateen_engine::config::access_log::{AccessLog, Filter, Format, Logger as Config, Record};
use lateen_engine::config::stats_log::StatsLog;
use lateen_engine::message::RequestHead;

use super::log_file::LogFile;
use super::operators;
use super::otlp_log::OtlpLogger;
use super::stats_log::StatsLogger;
use super::stream_info::StreamInfo;
use crate::worker::Worker;
use lateen_engine::headers::GRPC_STATUS;

/// What a connection manager or TCP proxy does with each record.
#[derive(Debug)]
pub(crate) struct Loggers(Vec<(Option<Filter>, Logger)>);

#[derive(Debug)]
enum Logger {
    File(Format, Arc<LogFile>),
    Otlp(OtlpLogger),
    Stats(Arc<StatsLog>, Rc<StatsLogger>),
}

impl Loggers {
    pub(crate) fn new(logs: &[AccessLog], worker: &Worker) -> Self {
        let shared = &worker.shared;
        let logger = |log: &AccessLog| {
            let logger = match &log.logger {
                Config::File(log) => Logger::File(log.format.clone(), shared.log_files.open(&log.path)),
                Config::Otlp(log) => Logger::Otlp(OtlpLogger::new(log, worker)),
                Config::Stats(log) => Logger::Stats(Arc::clone(log), worker.stats_logger(log)),
            };
            (log.filter.clone(), logger)
        };
        Self(logs.iter().map(logger).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of a request or connection that is over.
    pub(crate) fn log(&self, info: &StreamInfo, worker: &Rc<Worker>) {
        let http = info.protocol.is_some();
        self.log_at(if http { AccessLogType::DownstreamEnd } else { AccessLogType::TcpConnectionEnd }, info, worker);
    }

    /// At some time in the life of a request or connection.
    pub(crate) fn log_at(&self, time: AccessLogType, info: &StreamInfo, worker: &Rc<Worker>) {
        for (filter, logger) in &self.0 {
            if filter.as_ref().is_some_and(|filter| !takes(filter, time, info)) {
                continue;
            }
            match logger {
                Logger::File(format, file) => file.append(|line| operators::fill(format, info, line)),
                Logger::Otlp(logger) => logger.log(info, worker),
                Logger::Stats(log, logger) => {
                    logger.log(log, info);
                    worker.shared.counted.note();
                    if time == AccessLogType::DownstreamEnd && worker.shared.taps.are_on() {
                        worker.shared.taps.show(log, info, || worker.random());
                    }
                }
            }
        }
    }
}

fn takes(filter: &Filter, time: AccessLogType, info: &StreamInfo) -> bool {
    // Few filters look at more than headers: for those the head is put together again.
    let head = || {
        Some(RequestHead {
            method: info.method.clone()?,
            scheme: info.scheme(),
            authority: info.authority.clone(),
            path: info.path.clone(),
            headers: info.request_headers.clone(),
            version: info.protocol.unwrap_or(lateen_engine::message::Version::Http11),
        })
    };
    let status = info.trailers.get(&GRPC_STATUS).or_else(|| info.response_headers.get(&GRPC_STATUS));
    filter.takes(&Record {
        time,
        status: info.status,
        flags: info.flags,
        milliseconds: u64::try_from(info.duration.as_millis()).unwrap_or(u64::MAX),
        is_traced: info.trace.as_ref().is_some_and(|trace| trace.is_traced()),
        headers: &info.request_headers,
        head: &head,
        grpc_status: status.and_then(|status| status.to_str().ok()?.parse().ok()),
        metadata: &info.metadata,
        attributes: info,
    })
}

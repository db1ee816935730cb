//! A listener's access loggers on one worker: lines for files, numbers for statistics.

use std::sync::Arc;

use lateen_engine::config::access_log::{AccessLog, Format};

use super::log_file::LogFile;
use super::operators;
use super::stats_log::StatsLogger;
use super::stream_info::StreamInfo;
use crate::worker::Shared;

/// What a connection manager or TCP proxy does with each record.
#[derive(Debug)]
pub(crate) struct Loggers(Vec<Logger>);

#[derive(Debug)]
enum Logger {
    File(Format, Arc<LogFile>),
    Stats(StatsLogger),
}

impl Loggers {
    pub(crate) fn new(logs: &[AccessLog], shared: &Shared) -> Self {
        let logger = |log: &AccessLog| match log {
            AccessLog::File(log) => Logger::File(log.format.clone(), shared.log_files.open(&log.path)),
            AccessLog::Stats(log) => Logger::Stats(StatsLogger::new(Arc::clone(log), shared.stats.clone())),
        };
        Self(logs.iter().map(logger).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn log(&self, info: &StreamInfo) {
        for logger in &self.0 {
            match logger {
                Logger::File(format, file) => file.append(|line| operators::fill(format, info, line)),
                Logger::Stats(logger) => logger.log(info),
            }
        }
    }
}

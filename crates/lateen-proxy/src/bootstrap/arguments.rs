//! The command line: Envoy's names for what Envoy has.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// A proxy that is configured by Envoy v3 resources.
#[derive(Debug, Parser)]
#[command(name = "lateen-proxy", version, about)]
pub struct Arguments {
    /// The bootstrap: an envoy.config.bootstrap.v3.Bootstrap in YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    pub config_path: PathBuf,
    /// Worker threads; one per processor unless given.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Write the address of the admin port into this file once it listens.
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// What is logged to standard error.
    #[arg(short, long, value_enum, default_value = "warn")]
    pub log_level: LogLevel,
    /// Check the configuration and end (validate), or serve it.
    #[arg(long, value_enum, default_value = "serve")]
    pub mode: Mode,
    /// How long connections may take to end when the proxy stops or their listener goes, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "45", value_parser = seconds)]
    pub drain_time_s: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Serve,
    Validate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    #[value(alias = "critical")]
    Error,
    Off,
}

impl LogLevel {
    pub fn filter(self) -> tracing_subscriber::filter::LevelFilter {
        use tracing_subscriber::filter::LevelFilter;
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Off => LevelFilter::OFF,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

//! The command line: Envoy's names for what Envoy has.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// A proxy that is configured by Envoy v3 resources.
#[derive(Debug, Parser)]
#[command(name = "lateen-proxy", version, about, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub role: Option<Role>,
    /// The bootstrap: an envoy.config.bootstrap.v3.Bootstrap in YAML or JSON.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub config_path: Option<PathBuf>,
    /// Worker threads, 0 for one per processor; unless given, one per processor with a bootstrap, and two (or one per processor, if that is less)
    /// in a mesh.
    #[arg(long, value_name = "N", global = true)]
    pub concurrency: Option<usize>,
    /// Write the address of the admin port into this file once it listens.
    #[arg(long, value_name = "FILE", global = true)]
    pub admin_address_path: Option<PathBuf>,
    /// What is logged to standard error.
    #[arg(short, long, value_enum, default_value = "warn", global = true)]
    pub log_level: LogLevel,
    /// Check the configuration and end (validate), or serve it.
    #[arg(long, value_enum, default_value = "serve")]
    pub mode: Mode,
    /// How long connections may take to end when the proxy stops or their listener goes, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "45", value_parser = seconds, global = true)]
    pub drain_time_s: Duration,
}

/// What a proxy is in a mesh, whose environment says the rest; or what is to be asked of one.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Role {
    /// Beside a workload, whose traffic is redirected to it.
    Sidecar,
    /// A gateway.
    Router,
    /// Wait until the proxy in this pod is ready.
    Wait {
        /// Give up after so many seconds.
        #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
        timeout: Duration,
    },
    /// Ask the admin port of the proxy in this pod.
    Request {
        /// GET or POST.
        method: String,
        /// A path of the admin port, `/help` for all.
        path: String,
    },
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

//! `lateen-proxy`.

use std::process::ExitCode;

use clap::Parser as _;
use lateen_proxy::bootstrap::{self, arguments::Arguments};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_max_level(arguments.log_level.filter()).with_writer(std::io::stderr).init();
    match bootstrap::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

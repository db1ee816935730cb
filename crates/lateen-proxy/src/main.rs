//! `lateen-proxy`.

use std::process::ExitCode;

use clap::Parser as _;
use lateen_proxy::bootstrap::{self, arguments::Arguments};
use lateen_proxy::logging;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Memory that is free goes back to the kernel within a moment, by a thread of its own: starting and dumping the configuration
/// take several times what serving it does, and a proxy that idles would hold on to that for ever.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[expect(unsafe_code, reason = "SAFETY: jemalloc reads its options from a pointer of this name to a C string")]
pub static MALLOC_CONF: &[u8; 84] =
    b"background_thread:true,max_background_threads:1,dirty_decay_ms:500,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.log_level.filter());
    match bootstrap::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

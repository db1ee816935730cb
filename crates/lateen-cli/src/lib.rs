//! The `lateen` command: one file per subcommand, and the mesh on one machine that `lateen up` runs.

mod api;
mod cluster;
mod commands;
mod runtime;

use std::ffi::CStr;
use std::process::ExitCode;

/// What `main` does. The mesh on one machine starts this very program again for the processes inside namespaces; those
/// calls are told apart by their first argument and are no part of the command line that users see.
pub fn main() -> ExitCode {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    match first.to_str() {
        Some(runtime::NODE) => named(c"lateen-node", runtime::node::main),
        Some(runtime::CONTAINER) => named(c"lateen-init", runtime::pod::container_init::main),
        Some(runtime::ENTER) => named(c"lateen-enter", runtime::pod::enter::main),
        _ => commands::main(),
    }
}

/// Runs `main` under a name that tells processes apart in a list of them.
fn named(name: &CStr, main: fn() -> ExitCode) -> ExitCode {
    // A name that cannot be set is missed by nobody but a reader of that list.
    let _ = nix::sys::prctl::set_name(name);
    main()
}

//! Runs a test's body in a process of its own with its own user (where needed), mount and network namespaces.

use std::ffi::OsString;
use std::path::Path;

use lateen_intercept::link;
use lateen_intercept::spawn::{Spawn, Step};
use lateen_intercept::userns::{self, Privilege};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

const MARKER: &str = "LATEEN_TEST_INSIDE";

/// Calls `body` inside the namespaces. `name` is the test's full name, by which the process finds its way back here.
///
/// Where namespaces cannot be made the test fails, unless `LATEEN_ALLOW_SKIP=1` says that leaving it out is fine; then it
/// says so on standard error, one `SKIPPED` line per test.
pub(crate) fn isolated(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARKER).is_some_and(|inside| inside == name) {
        link::set_up("lo").unwrap();
        return body();
    }
    let arguments = ["--exact", "--nocapture", "--test-threads=1", name].map(OsString::from);
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    environment.push((MARKER.into(), name.into()));
    let flags = Privilege::of_this_process().with(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS);
    let program = std::env::current_exe().unwrap();
    let child = match Spawn::new(&program, &arguments, &environment).unwrap().namespaces(flags).start() {
        Ok(child) => child,
        Err(error)
            if error.step != Step::Exec && std::env::var("LATEEN_ALLOW_SKIP").is_ok_and(|value| value == "1") =>
        {
            eprintln!("SKIPPED {name}: {}", userns::explain(&error));
            return;
        }
        Err(error) => panic!("{}", userns::explain(&error)),
    };
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0), "{name} failed inside its namespaces");
}

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lateen-intercept"))
}

//! A host of a test's own: namespaces that stand for the machine a mesh is started on.

use std::ffi::OsString;

use lateen_intercept::link;
use lateen_intercept::spawn::Spawn;
use lateen_intercept::userns::{self, Privilege};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

const MARKER: &str = "LATEEN_TEST_INSIDE";

/// Runs the rest of a test in a network namespace of its own, and in those that `more` says. `name` is the test's full
/// name, by which the new process finds its way back here.
pub(crate) fn on_a_host_of_its_own(name: &str, more: CloneFlags, body: impl FnOnce()) {
    if std::env::var_os(MARKER).is_some() {
        link::set_up("lo").unwrap();
        return body();
    }
    let arguments = ["--exact", "--nocapture", name].map(OsString::from);
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    environment.push((MARKER.into(), "1".into()));
    let flags = Privilege::of_this_process().with(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | more);
    let program = std::env::current_exe().unwrap();
    let child = Spawn::new(&program, &arguments, &environment).unwrap().namespaces(flags).start();
    let child = child.unwrap_or_else(|error| panic!("{}", userns::explain(&error)));
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

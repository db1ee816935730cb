//! Starting programs in new namespaces.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use lateen_intercept::netns::NetNs;
use lateen_intercept::spawn::{Spawn, Step};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::isolated::isolated;

/// Runs a shell command with its output caught; returns the output and the exit status.
fn shell(script: &str, namespaces: CloneFlags, network: Option<&NetNs>) -> (String, WaitStatus) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let arguments = ["-c", script].map(OsString::from);
    let environment = [(OsString::from("GREETING"), OsString::from("hello"))];
    let mut spawn = Spawn::new(Path::new("/bin/sh"), &arguments, &environment).unwrap();
    spawn = spawn.descriptor(writer.as_fd(), 1).namespaces(namespaces).own_session();
    if let Some(network) = network {
        spawn = spawn.in_network(network.as_fd());
    }
    let child = spawn.start().unwrap();
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    (output.trim().to_owned(), waitpid(child, None).unwrap())
}

#[test]
fn a_child_can_be_the_first_process_of_a_pid_namespace() {
    isolated("processes::a_child_can_be_the_first_process_of_a_pid_namespace", || {
        let (output, status) = shell("echo $$ $GREETING; exit 3", CloneFlags::CLONE_NEWPID, None);
        assert_eq!(output, "1 hello");
        assert!(matches!(status, WaitStatus::Exited(_, 3)), "{status:?}");
    });
}

#[test]
fn a_child_can_start_in_another_network() {
    isolated("processes::a_child_can_start_in_another_network", || {
        let other = NetNs::create().unwrap();
        let theirs = other.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        let (output, _) = shell("readlink /proc/self/ns/net", CloneFlags::empty(), Some(&other));
        assert_eq!(output, theirs.display().to_string());
    });
}

/// As who starts `lateen up` in the background of a script does.
#[test]
fn a_child_takes_the_signals_that_its_parent_ignores() {
    isolated("processes::a_child_takes_the_signals_that_its_parent_ignores", || {
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            #[expect(unsafe_code, reason = "ignoring is no handler, which alone could do harm")]
            // SAFETY: no handler is installed.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.unwrap();
        }
        let (output, _) = shell("trap 'echo caught' INT QUIT; kill -INT $$; kill -QUIT $$", CloneFlags::empty(), None);
        assert_eq!(output, "caught\ncaught");
    });
}

#[test]
fn the_step_that_failed_is_named() {
    let missing = Spawn::new(Path::new("/nonexistent/program"), &[], &[]).unwrap().start().unwrap_err();
    assert_eq!((missing.step, missing.source.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
    let file = std::fs::File::open("/dev/null").unwrap();
    let shell = Spawn::new(Path::new("/bin/sh"), &[], &[]).unwrap();
    let not_a_network = shell.in_network(file.as_fd()).start().unwrap_err();
    assert_eq!(not_a_network.step, Step::EnterNetwork);
}

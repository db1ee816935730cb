//! How many connections the process takes on: what its file descriptors are enough for, or what it is told.
#![expect(unsafe_code, reason = "getrlimit(2) and setrlimit(2) have no safe wrapper among what is used here")]

/// Descriptors that no connection gets, nor what it needs upstream: files, sockets that listen, the control plane, the admin
/// port.
const OWN: usize = 64;

/// How many connections there may be at a time: no more than the descriptors are enough for, whatever is `told`.
pub(crate) fn most_connections(told: Option<usize>) -> usize {
    // Each has one to an upstream beside it.
    let enough = raise_descriptors().saturating_sub(OWN) / 2;
    told.unwrap_or(enough).min(enough)
}

/// Asks for as many as the process may have, and tells how many it has. Systems give programs few at first for the sake of
/// those that use select(2).
fn raise_descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is what getrlimit writes to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return 1024;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is only read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

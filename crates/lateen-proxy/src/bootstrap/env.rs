//! The environment variables that the proxy reads, all of them.

/// SO_MARK for upstream sockets: redirect rules exempt what carries it. Needed where the proxy has no uid of its own.
pub const SOCKET_MARK: &str = "LATEEN_SOCKET_MARK";
/// The machine's or pod's name, for `%HOSTNAME%`.
pub const HOSTNAME: &str = "HOSTNAME";

/// A variable by its name: for the two above, and for what a configuration itself names.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

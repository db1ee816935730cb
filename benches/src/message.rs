//! The bytes that both ends know, so that every answer can be compared whole.

/// What an HTTP upstream answers with: 1 KiB.
pub(crate) const BODY: &[u8; 1024] = &pattern();

/// What goes back and forth over plain TCP.
pub(crate) const ECHO: &[u8; 128] = &pattern();

/// A gRPC message of 128 bytes behind its prefix (no compression, length): both the call and the answer.
pub(crate) const GRPC: &[u8; 133] = &grpc();

/// The period of what bulk transfers carry: byte N of a stream is N modulo this.
pub(crate) const BULK_PERIOD: usize = 251;

const fn pattern<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = b'a' + (at % 26) as u8;
        at += 1;
    }
    bytes
}

const fn grpc() -> [u8; 133] {
    let mut bytes: [u8; 133] = pattern();
    let prefix = [0, 0, 0, 0, 128];
    let mut at = 0;
    while at < prefix.len() {
        bytes[at] = prefix[at];
        at += 1;
    }
    bytes
}

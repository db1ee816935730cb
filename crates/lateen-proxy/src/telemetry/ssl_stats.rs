//! What handshakes came to, under Envoy's names (`listener.ADDRESS.ssl.…`, `cluster.NAME.ssl.…`). Counters are looked up for each:
//! a handshake costs a thousand times as much.

use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

use super::stats::{Registry, Scope};

/// Counts a handshake that succeeded.
pub(crate) fn secured(registry: &Registry, scope: &Scope, connection: &CommonState) {
    let count = |name: &'static str| registry.counter(scope, name).inc();
    count("ssl.handshake");
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        count("ssl.session_reused");
    }
    if connection.peer_certificates().is_none() {
        count("ssl.no_certificate");
    }
    if let Some(name) = connection.protocol_version().and_then(version) {
        count(name);
    }
    if let Some(name) = connection.negotiated_cipher_suite().and_then(|suite| cipher(suite.suite())) {
        count(name);
    }
    // A session of TLS 1.2 that is resumed agrees on none.
    if let Some(name) = connection.negotiated_key_exchange_group().and_then(|group| curve(group.name())) {
        count(name);
    }
}

/// Counts a handshake that failed.
pub(crate) fn failed(registry: &Registry, scope: &Scope) {
    registry.counter(scope, "ssl.connection_error").inc();
}

fn version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("ssl.versions.TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("ssl.versions.TLSv1.3"),
        _ => None,
    }
}

fn curve(group: NamedGroup) -> Option<&'static str> {
    match group {
        NamedGroup::X25519MLKEM768 => Some("ssl.curves.X25519MLKEM768"),
        NamedGroup::X25519 => Some("ssl.curves.X25519"),
        NamedGroup::secp256r1 => Some("ssl.curves.P-256"),
        NamedGroup::secp384r1 => Some("ssl.curves.P-384"),
        _ => None,
    }
}

/// BoringSSL's names: those of the standard for TLS 1.3, OpenSSL's for TLS 1.2.
fn cipher(suite: CipherSuite) -> Option<&'static str> {
    Some(match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "ssl.ciphers.TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "ssl.ciphers.TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "ssl.ciphers.TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ssl.ciphers.ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ssl.ciphers.ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ssl.ciphers.ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ssl.ciphers.ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ssl.ciphers.ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

//! What is offered in handshakes: all that the library has, or what a context chooses of it.

use std::sync::{Arc, LazyLock};

use lateen_engine::config::tls::{Group, Parameters, Suite, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};

/// The provider with a context's choice of suites for TLS 1.2 and of groups.
pub(super) fn chosen(parameters: &Parameters) -> Arc<CryptoProvider> {
    if parameters.suites.is_none() && parameters.groups.is_none() {
        return provider();
    }
    let mut provider = (*provider()).clone();
    if let Some(suites) = &parameters.suites {
        let all = std::mem::take(&mut provider.cipher_suites);
        let chosen = suites.iter().filter_map(|suite| all.iter().find(|known| known.suite() == name_of(*suite)));
        let newer = all.iter().filter(|known| known.tls13().is_some());
        provider.cipher_suites = newer.chain(chosen).copied().collect();
    }
    if let Some(groups) = &parameters.groups {
        let all = std::mem::take(&mut provider.kx_groups);
        let chosen = groups.iter().filter_map(|group| all.iter().find(|known| known.name() == group_name(*group)));
        provider.kx_groups = chosen.copied().collect();
    }
    Arc::new(provider)
}

fn name_of(suite: Suite) -> CipherSuite {
    match suite {
        Suite::EcdsaAes128 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::RsaAes128 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdsaAes256 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::RsaAes256 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdsaChaCha20 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Suite::RsaChaCha20 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group_name(group: Group) -> NamedGroup {
    match group {
        Group::X25519MlKem768 => NamedGroup::X25519MLKEM768,
        Group::X25519 => NamedGroup::X25519,
        Group::P256 => NamedGroup::secp256r1,
        Group::P384 => NamedGroup::secp384r1,
    }
}

/// The one provider: aws-lc-rs, with Envoy's order of TLS 1.3's cipher suites. SHA-256 and AES with 128 bits make handshakes
/// and records cheaper where processors know them; they are what an Envoy on either side would agree on.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // A stable sort: the others keep the library's order.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

pub(super) fn versions(parameters: &Parameters) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = Vec::new();
    if parameters.maximum >= TlsVersion::V1_3 {
        versions.push(&rustls::version::TLS13);
    }
    if parameters.minimum <= TlsVersion::V1_2 {
        versions.push(&rustls::version::TLS12);
    }
    versions
}

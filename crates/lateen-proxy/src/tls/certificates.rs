//! A server with several certificates, and which of them a client gets.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm};

use super::TlsError;
use super::material::Identity;

/// The first that the client can do something with, of those for the server that it names, if there are any. Those with an
/// elliptic curve's key come first: they are cheaper, and clients that know none get the other (Envoy's rules, too).
#[derive(Debug)]
pub(super) struct OneOfSeveral(Vec<Known>);

#[derive(Debug)]
struct Known {
    key: Arc<CertifiedKey>,
    /// DNS names, lower case.
    names: Vec<String>,
}

impl Known {
    fn of(identity: Identity) -> Result<Self, TlsError> {
        let names = identity.names().dns_sans.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { key: Arc::new(identity.certified()?), names })
    }

    /// A wildcard stands for one label.
    fn is_for(&self, server: &str) -> bool {
        let parent = server.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| name == server || name.strip_prefix("*.").is_some_and(|name| Some(name) == parent))
    }
}

impl OneOfSeveral {
    pub(super) fn of(identities: Vec<Identity>) -> Result<Self, TlsError> {
        let mut keys = identities.into_iter().map(Known::of).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(TlsError::new("a server needs a certificate"));
        }
        // A stable sort: of one kind, the first that is listed.
        keys.sort_by_key(|known| !is_of_a_curve(&known.key));
        Ok(Self(keys))
    }
}

fn is_of_a_curve(key: &CertifiedKey) -> bool {
    key.key.algorithm() != SignatureAlgorithm::RSA
}

/// Whether a suite goes with such a key; those of TLS 1.3 go with any.
fn goes_with(suite: CipherSuite, curve: bool) -> bool {
    let name = suite.as_str().unwrap_or_default();
    name.starts_with("TLS13_") || name.contains(if curve { "_ECDSA_" } else { "_RSA_" })
}

impl ResolvesServerCert for OneOfSeveral {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_usable = |known: &&Known| {
            known.key.key.choose_scheme(hello.signature_schemes()).is_some()
                && hello.cipher_suites().iter().any(|suite| goes_with(*suite, is_of_a_curve(&known.key)))
        };
        let server = hello.server_name().map(str::to_ascii_lowercase);
        let named = server.and_then(|server| self.0.iter().filter(is_usable).find(|known| known.is_for(&server)));
        named.or_else(|| self.0.iter().find(is_usable)).map(|known| Arc::clone(&known.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_go_with_keys() {
        for (suite, curve, rsa) in [
            (CipherSuite::TLS13_AES_128_GCM_SHA256, true, true),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true, false),
            (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, false, true),
            (CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA, false, true),
        ] {
            assert_eq!((goes_with(suite, true), goes_with(suite, false)), (curve, rsa), "{suite:?}");
        }
    }
}

//! Sessions that may be resumed. A resumed session is the peer's that was verified when it began, and is verified no more: so
//! it must not outlive what it was verified by. Another identity of ours, other roots and other matchers make another
//! configuration, with which no session is shared; what is left is that certificates expire.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Sessions that are kept for one configuration, as the library's own store counts them.
const MOST: usize = 256;
/// Beyond so many names all are verified anew.
const MOST_NAMES: usize = 64;

/// Sessions with servers, by name.
#[derive(Debug)]
pub(super) struct Sessions {
    cache: ClientSessionMemoryCache,
    /// Until when what servers of a name were verified by is valid.
    valid_until: Mutex<HashMap<ServerName<'static>, SystemTime>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { cache: ClientSessionMemoryCache::new(MOST), valid_until: Mutex::default() }
    }
}

impl Sessions {
    /// A server of this name was verified by these certificates.
    pub(super) fn verified(&self, name: &ServerName<'static>, chain: &[CertificateDer<'_>]) {
        let Some(until) = valid_until(chain) else { return };
        let mut known = self.lock();
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        // Sessions with other servers of that name may be among those that are kept.
        known.entry(name.clone()).and_modify(|known| *known = until.min(*known)).or_insert(until);
    }

    /// Whether sessions with servers of this name may be resumed; those that may not be are forgotten.
    fn may_resume(&self, name: &ServerName<'_>) -> bool {
        let name = name.to_owned();
        let mut known = self.lock();
        if known.get(&name).is_some_and(|until| SystemTime::now() < *until) {
            return true;
        }
        known.remove(&name);
        drop(known);
        self.cache.remove_tls12_session(&name);
        while self.cache.take_tls13_ticket(&name).is_some() {}
        false
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, SystemTime>> {
        self.valid_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(name, session);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        if self.may_resume(name) { self.cache.tls12_session(name) } else { None }
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.cache.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.cache.insert_tls13_ticket(name, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.may_resume(name) { self.cache.take_tls13_ticket(name) } else { None }
    }
}

/// When the first of these is valid no more; none if one cannot be read. The second that a certificate names as its last is
/// part of its time (RFC 5280 section 4.1.2.5).
pub(super) fn valid_until(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let mut first = None;
    for certificate in chain {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds + 1))?;
        first = Some(first.map_or(until, |first: SystemTime| first.min(until)));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::Resumption;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    /// Has both speak until they have nothing more to say.
    fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, sessions: &Sessions) -> HandshakeKind {
        let name = ServerName::try_from("a.test").expect("it is a name");
        let mut client = ClientConnection::new(Arc::clone(client), name.clone()).expect("the name is good");
        let mut server = ServerConnection::new(Arc::clone(server)).expect("the configuration is good");
        while client.wants_write() || server.wants_write() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).expect("memory takes it");
            }
            let mut rest = &up[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("it is memory");
                server.process_new_packets().expect("they agree");
            }
            while server.wants_write() {
                server.write_tls(&mut down).expect("memory takes it");
            }
            let mut rest = &down[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("it is memory");
                client.process_new_packets().expect("they agree");
            }
        }
        let kind = client.handshake_kind().expect("it is done");
        if kind != HandshakeKind::Resumed {
            sessions.verified(&name, client.peer_certificates().expect("there is one"));
        }
        kind
    }

    #[test]
    fn a_session_ends_with_the_certificate_it_was_verified_by() {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name is good");
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let certificate = params.self_signed(&key).expect("it can be signed").der().clone();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(7_258_118_401);
        assert_eq!(valid_until(std::slice::from_ref(&certificate)), Some(until));
        assert_eq!(valid_until(&[certificate.clone(), CertificateDer::from_slice(b"none")]), None);

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("it is a certificate");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let sessions = Arc::new(Sessions::default());
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("it is there")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.resumption = Resumption::store(Arc::<Sessions>::clone(&sessions));
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("it is there")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
                .expect("key and certificate belong together");
            let (client, server) = (Arc::new(client), Arc::new(server));
            assert_eq!(handshake(&client, &server, &sessions), HandshakeKind::Full);
            assert_eq!(handshake(&client, &server, &sessions), HandshakeKind::Resumed);
            sessions.lock().values_mut().for_each(|until| *until = SystemTime::now());
            assert_eq!(handshake(&client, &server, &sessions), HandshakeKind::Full, "its time is over");
            assert_eq!(handshake(&client, &server, &sessions), HandshakeKind::Resumed);
        }
    }
}

//! What is read of a connection before anybody knows what it speaks.

use bytes::BytesMut;

use crate::listener::fuzz_proxy_protocol;
use crate::tls::hello::{self, NoHello};

/// What TLS itself reads in a hello is what its chain was chosen by; and less of the bytes never tells something else.
pub fn client_hello(data: &[u8]) {
    let seen = hello::parse(data);
    for length in [data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
        let part = hello::parse(&data[..length]);
        assert!(part == Ok(None) || part == seen, "{part:?} became {seen:?}");
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return;
        }
        let Ok(accepted) = acceptor.accept() else { return };
        let Some(accepted) = accepted else { continue };
        let told = accepted.client_hello();
        let seen = match &seen {
            Ok(Some(seen)) => seen,
            // The connection ends before TLS sees it.
            Err(NoHello::Broken) => return,
            other => panic!("TLS reads a hello where we saw {other:?}"),
        };
        if let Some(name) = told.server_name() {
            assert_eq!(seen.sni.as_deref(), Some(name.to_ascii_lowercase().as_str()));
        }
        if let Some(protocols) = told.alpn() {
            assert_eq!(seen.alpn, protocols.map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
        return;
    }
}

/// How bytes arrive makes no difference.
pub fn proxy_protocol(data: &[u8]) {
    let whole = fuzz_proxy_protocol(&mut BytesMut::from(data));
    let mut buffer = BytesMut::new();
    for (at, byte) in data.iter().enumerate() {
        buffer.extend_from_slice(&[*byte]);
        let seen = fuzz_proxy_protocol(&mut buffer);
        if let Some(seen) = seen {
            assert_eq!(Some(seen), whole, "after {at} bytes");
            return;
        }
    }
    assert_eq!(whole, None);
}

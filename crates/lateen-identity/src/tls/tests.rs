//! Handshakes between members of a mesh, and with others.

use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::ca::SigningRequest;
use crate::csr::Request;
use crate::{CertificateAuthority, PeerIdentity, SpiffeId};

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "default", account).unwrap()
}

fn issue(ca: &CertificateAuthority, id: &SpiffeId, at: SystemTime) -> Identity {
    let request = Request::new(id).unwrap();
    let signing = SigningRequest::from_pem(request.pem()).unwrap();
    let issued = ca.issue(&signing, id, Some(Duration::from_secs(3600)), at).unwrap();
    request.complete(id, &issued.chain).unwrap().0
}

/// Passes bytes to and fro until both are done, or one refuses.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

struct World {
    ca: CertificateAuthority,
    client: Identity,
    server: Identity,
}

fn world() -> World {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("cluster.local", now).unwrap();
    let (client, server) = (issue(&ca, &id("client"), now), issue(&ca, &id("server"), now));
    World { ca, client, server }
}

fn sans(account: &str) -> ExpectedPeer {
    ExpectedPeer::Sans(vec![id(account).to_string()])
}

fn by(ca: &CertificateAuthority) -> Authorities {
    let anchors = Anchors::new(ca.roots().store());
    Authorities::ByTrustDomain([("cluster.local".to_owned(), anchors)].into())
}

fn domains(domain: &str) -> ExpectedPeer {
    ExpectedPeer::TrustDomains(vec![domain.to_owned()])
}

#[test]
fn workloads_know_each_other_after_the_handshake() {
    let World { ca, client, server } = world();
    let client = mesh_client(Some(&client), ca.roots(), sans("server"), &[b"istio-h2", b"istio"]).unwrap();
    let server = mesh_server(&server, by(&ca), domains("cluster.local"), ClientAuth::Required, &[b"istio"]).unwrap();
    let (client, server) = handshake(client, server, "outbound_.80_._.server.default.svc.cluster.local").unwrap();
    assert_eq!(PeerIdentity::of_connection(&server).unwrap().spiffe_id(), Some(id("client")));
    assert_eq!(PeerIdentity::of_connection(&client).unwrap().spiffe_id(), Some(id("server")));
    assert_eq!(server.alpn_protocol(), Some(&b"istio"[..]));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn a_server_with_another_name_is_refused() {
    let World { ca, client, server } = world();
    for expected in [sans("other"), ExpectedPeer::Sans(Vec::new()), domains("other.domain")] {
        let client = mesh_client(Some(&client), ca.roots(), expected, &[]).unwrap();
        let server = mesh_server(&server, by(&ca), domains("cluster.local"), ClientAuth::Required, &[]).unwrap();
        assert!(handshake(client, server, "x").is_err());
    }
}

#[test]
fn a_client_of_another_trust_domain_or_root_is_refused() {
    let World { ca, client, server } = world();
    let strict = || mesh_server(&server, by(&ca), domains("other.domain"), ClientAuth::Required, &[]).unwrap();
    assert!(handshake(mesh_client(Some(&client), ca.roots(), sans("server"), &[]).unwrap(), strict(), "x").is_err());
    // The very same names, from an authority that nobody here knows.
    let stranger = issue(&world().ca, &id("client"), SystemTime::now());
    let client = mesh_client(Some(&stranger), ca.roots(), sans("server"), &[]).unwrap();
    let server = mesh_server(&server, by(&ca), domains("cluster.local"), ClientAuth::Required, &[]).unwrap();
    assert!(handshake(client, server, "x").is_err());
}

#[test]
fn expired_certificates_are_refused_on_both_sides() {
    let World { ca, client, server } = world();
    let old = issue(&ca, &id("server"), SystemTime::now() - Duration::from_secs(7200));
    let late = mesh_server(&old, by(&ca), domains("cluster.local"), ClientAuth::Required, &[]).unwrap();
    assert!(handshake(mesh_client(Some(&client), ca.roots(), sans("server"), &[]).unwrap(), late, "x").is_err());
    let good = mesh_server(&server, by(&ca), domains("cluster.local"), ClientAuth::Required, &[]).unwrap();
    assert!(handshake(mesh_client(Some(&old), ca.roots(), sans("server"), &[]).unwrap(), good, "x").is_err());
}

#[test]
fn a_client_without_a_certificate_passes_only_where_it_is_optional() {
    let World { ca, server, .. } = world();
    let anonymous = || web_client(Roots::Given(ca.roots()), None, &[]).unwrap();
    let now = SystemTime::now();
    let front = ca.server_identity(&["lateend.istio-system.svc"], &["127.0.0.1".parse().unwrap()], now).unwrap();
    let with = |clients| mesh_server(&front, by(&ca), domains("cluster.local"), clients, &[b"h2"]).unwrap();
    let (_, connection) = handshake(anonymous(), with(ClientAuth::Optional), "lateend.istio-system.svc").unwrap();
    assert_eq!(PeerIdentity::of_connection(&connection), None);
    assert!(handshake(anonymous(), with(ClientAuth::Optional), "127.0.0.1").is_ok());
    assert!(handshake(anonymous(), with(ClientAuth::Optional), "elsewhere.svc").is_err());
    assert!(handshake(anonymous(), with(ClientAuth::Required), "lateend.istio-system.svc").is_err());
    assert!(
        handshake(
            web_client(Roots::Public, None, &[]).unwrap(),
            with(ClientAuth::Optional),
            "lateend.istio-system.svc"
        )
        .is_err()
    );
    // A workload's certificate names no host: it is not good for an ordinary client.
    let workload = mesh_server(&server, by(&ca), domains("cluster.local"), ClientAuth::Optional, &[]).unwrap();
    assert!(handshake(anonymous(), workload, "server").is_err());
}

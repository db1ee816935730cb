//! What the authority signs, refuses, and keeps on disk.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

mod plugged_in;
mod rotation;

use super::*;
use crate::PeerIdentity;
use crate::csr::Request;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id() -> SpiffeId {
    SpiffeId::new("cluster.local", "default", "reviews").unwrap()
}

fn ca() -> CertificateAuthority {
    CertificateAuthority::self_signed("cluster.local", now()).unwrap()
}

fn leaf(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.chain[0].as_bytes()).unwrap()
}

#[test]
fn an_answer_is_leaf_first_and_root_last() {
    let ca = ca();
    let request = Request::new(&id()).unwrap();
    let issued = ca.issue(&SigningRequest::from_pem(request.pem()).unwrap(), &id(), None, now()).unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(issued.not_after, now() + DEFAULT_LIFETIME);
    let der = leaf(&issued);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(parsed.validity().not_before.timestamp(), 1_800_000_000 - 120);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(parsed.subject().as_raw().len() <= 2, "no subject");
    let (identity, roots) = request.complete(&id(), &issued.chain).unwrap();
    assert_eq!(identity.names().spiffe_id(), Some(id()));
    assert_eq!(&roots, ca.roots());
}

#[test]
fn serials_are_not_repeated() {
    let ca = ca();
    let request = SigningRequest::from_pem(Request::new(&id()).unwrap().pem()).unwrap();
    let serials: std::collections::BTreeSet<_> =
        (0..50).map(|_| ca.issue(&request, &id(), None, now()).unwrap().serial).collect();
    assert_eq!(serials.len(), 50);
}

/// A request that wishes for much more than it should get.
fn greedy(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["lateend.istio-system.svc".to_owned()]).unwrap();
    let admin = "spiffe://cluster.local/ns/istio-system/sa/admin";
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(admin).unwrap()));
    params.distinguished_name.push(DnType::CommonName, admin);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn the_wishes_in_a_request_are_not_granted() {
    let ca = ca();
    let request = SigningRequest::from_pem(&greedy(&KeyPair::generate().unwrap())).unwrap();
    let der = leaf(&ca.issue(&request, &id(), None, now()).unwrap());
    let names = PeerIdentity::of(&der);
    assert_eq!(names, PeerIdentity { uri_sans: vec![id().to_string()], ..PeerIdentity::default() });
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert!(!parsed.is_ca());
    assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(parsed.subject().iter_common_name().count(), 0);
}

#[test]
fn a_request_must_be_signed_by_its_own_key() {
    let pem = greedy(&KeyPair::generate().unwrap());
    let mut der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    assert!(SigningRequest::from_der(&der).is_ok());
    // Some byte of a name, and some byte of the signature.
    let name = der.windows(5).position(|window| window == b"admin").unwrap();
    for at in [name, der.len() - 1] {
        der[at] ^= 1;
        assert!(matches!(SigningRequest::from_der(&der), Err(CaError::Request(_))));
        der[at] ^= 1;
    }
    der.push(0);
    assert!(SigningRequest::from_der(&der).is_err());
}

#[test]
fn keys_of_the_kinds_that_are_allowed_are_signed() {
    let ca = ca();
    for (algorithm, allowed) in [
        (&PKCS_ECDSA_P256_SHA256, true),
        (&PKCS_ECDSA_P384_SHA384, true),
        (&PKCS_ECDSA_P521_SHA512, false),
        (&PKCS_ED25519, false),
    ] {
        let request = SigningRequest::from_pem(&greedy(&KeyPair::generate_for(algorithm).unwrap()));
        assert_eq!(request.is_ok(), allowed, "{algorithm:?}");
        if let Ok(request) = request {
            assert!(ca.issue(&request, &id(), None, now()).is_ok());
        }
    }
    for weak in [include_str!("../testdata/rsa-512.csr"), include_str!("../testdata/rsa-1024.csr")] {
        assert!(matches!(SigningRequest::from_pem(weak), Err(CaError::Request(_))));
    }
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let request = SigningRequest::from_pem(&greedy(&rsa)).unwrap();
    assert!(ca.issue(&request, &id(), None, now()).is_ok());
}

#[test]
fn nonsense_is_no_request() {
    for text in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert!(SigningRequest::from_pem(text).is_err());
    }
    assert!(SigningRequest::from_pem(&"x".repeat(1 << 20)).is_err());
}

#[test]
fn lifetimes_are_bounded() {
    let ca = ca();
    let request = SigningRequest::from_pem(Request::new(&id()).unwrap().pem()).unwrap();
    let issue = |lifetime, at| ca.issue(&request, &id(), lifetime, at);
    assert!(matches!(issue(Some(MAX_LIFETIME + Duration::from_secs(1)), now()), Err(CaError::Lifetime(_))));
    assert!(issue(Some(MAX_LIFETIME), now()).is_ok());
    assert_eq!(issue(Some(Duration::ZERO), now()).unwrap().not_after, now() + DEFAULT_LIFETIME);
    let end = now() + ROOT_LIFETIME;
    assert_eq!(issue(None, end - Duration::from_secs(60)).unwrap().not_after, end);
    assert!(matches!(issue(None, end), Err(CaError::Expired)));
}

#[test]
fn the_root_stays_the_same_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("ca");
    let load = || CertificateAuthority::load_or_create(&folder, "cluster.local", now());
    let first = load().unwrap();
    assert_eq!(load().unwrap().roots(), first.roots());
    let mode = std::fs::metadata(folder.join("ca-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Whoever could read the key may have used it.
    std::fs::set_permissions(folder.join("ca-key.pem"), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(
        matches!(load(), Err(CaError::File { file, reason }) if file.ends_with("ca-key.pem") && reason.contains("0640"))
    );
    // A lost root is not papered over with a new one.
    std::fs::remove_file(folder.join("root-cert.pem")).unwrap();
    assert!(matches!(load(), Err(CaError::File { file, .. }) if file.ends_with("root-cert.pem")));
}

#[test]
fn an_answer_for_another_key_or_name_is_not_taken() {
    let ca = ca();
    let (mine, theirs) = (Request::new(&id()).unwrap(), Request::new(&id()).unwrap());
    let issued = ca.issue(&SigningRequest::from_pem(theirs.pem()).unwrap(), &id(), None, now()).unwrap();
    assert!(mine.complete(&id(), &issued.chain).is_err());
    let other = SpiffeId::new("cluster.local", "default", "ratings").unwrap();
    assert!(theirs.complete(&other, &issued.chain).is_err());
    assert!(Request::new(&id()).unwrap().complete(&id(), &[]).is_err());
}

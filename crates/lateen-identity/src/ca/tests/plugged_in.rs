//! An authority that somebody else keeps: whole and fitting, or not at all.

use std::path::Path;

use rcgen::{
    CertificateRevocationListParams, CertifiedIssuer, KeyIdMethod, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize,
    date_time_ymd,
};

use super::super::plugged_in::Parts;
use super::*;

/// A company's root, and an intermediate of it for the mesh.
struct Company {
    root: CertifiedIssuer<'static, KeyPair>,
    mesh: CertifiedIssuer<'static, KeyPair>,
}

fn company(root_key: KeyPair, mesh_key: KeyPair) -> Company {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let root = CertifiedIssuer::self_signed(params("company root"), root_key).unwrap();
    let mesh = CertifiedIssuer::signed_by(params("mesh"), mesh_key, &root).unwrap();
    Company { root, mesh }
}

fn ordinary() -> Company {
    company(KeyPair::generate().unwrap(), KeyPair::generate().unwrap())
}

impl Company {
    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("root-cert.pem"), self.root.pem()).unwrap();
        std::fs::write(folder.join("ca-cert.pem"), self.mesh.pem()).unwrap();
        std::fs::write(folder.join("cert-chain.pem"), self.mesh.pem() + &self.root.pem()).unwrap();
        std::fs::write(folder.join("ca-key.pem"), self.mesh.key().serialize_pem()).unwrap();
    }

    /// The lists of both, with one number revoked in the mesh's.
    fn lists(&self, revoked: u64, until: i32) -> [String; 2] {
        let list = |issuer: &CertifiedIssuer<'static, KeyPair>, revoked: Option<u64>| {
            let revoked = revoked.map(|number| RevokedCertParams {
                serial_number: SerialNumber::from(number),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            });
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2024, 1, 1),
                next_update: date_time_ymd(until, 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: revoked.into_iter().collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(issuer).unwrap().pem().unwrap()
        };
        [list(&self.root, None), list(&self.mesh, Some(revoked))]
    }
}

fn load(folder: &Path) -> Result<CertificateAuthority, CaError> {
    CertificateAuthority::plugged_in(&Parts::read(folder)?)
}

fn answers(ca: &CertificateAuthority) -> Issued {
    let request = Request::new(&id()).unwrap();
    let signing = SigningRequest::from_pem(request.pem()).unwrap();
    let issued = ca.issue(&signing, &id(), None, SystemTime::now()).unwrap();
    request.complete(&id(), &issued.chain).unwrap();
    issued
}

#[test]
fn it_answers_with_its_chain() {
    let folder = tempfile::tempdir().unwrap();
    ordinary().write(folder.path());
    let issued = answers(&load(folder.path()).unwrap());
    assert_eq!(issued.chain.len(), 3, "the leaf, one intermediate, and the root");
}

#[test]
fn the_names_of_a_tls_secret_will_do() {
    let company = ordinary();
    let chain = company.mesh.pem() + &company.root.pem();
    let parts = |names: &[(&str, &str)]| {
        let text = |(name, text): &(&str, &str)| ((*name).to_owned(), text.as_bytes().to_vec());
        Parts::new("Secret istio-system/cacerts", names.iter().map(text).collect())
    };
    let (key, root) = (company.mesh.key().serialize_pem(), company.root.pem());
    let whole = parts(&[("tls.crt", &chain), ("tls.key", &key), ("ca.crt", &root), ("other", "x")]);
    assert_eq!(answers(&CertificateAuthority::plugged_in(&whole).unwrap()).chain.len(), 3);
    let half = CertificateAuthority::plugged_in(&parts(&[("tls.crt", &chain)])).err().unwrap().to_string();
    assert_eq!(half, "Secret istio-system/cacerts: tls.key, ca.crt missing from the authority");
}

#[test]
fn it_must_be_whole_and_fit_together() {
    for missing in ["root-cert.pem", "cert-chain.pem", "ca-key.pem", "ca-cert.pem"] {
        let folder = tempfile::tempdir().unwrap();
        ordinary().write(folder.path());
        std::fs::remove_file(folder.path().join(missing)).unwrap();
        let error = load(folder.path()).err().unwrap().to_string();
        assert!(error.ends_with(&format!("{missing} missing from the authority")), "{error}");
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    let stranger = ordinary().root.pem();
    for (name, text, told) in [
        ("ca-key.pem", other.as_str(), "the key is for another certificate"),
        ("ca-key.pem", "", "ca-key.pem: no private key that can be used"),
        ("root-cert.pem", stranger.as_str(), "does not lead to the roots"),
        ("ca-cert.pem", "-----BEGIN CERT", "ca-cert.pem: "),
        ("ca-crl.pem", "", "ca-crl.pem: no revocation list in PEM form"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        ordinary().write(folder.path());
        std::fs::write(folder.path().join(name), text).unwrap();
        let error = load(folder.path()).err().unwrap().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
}

#[test]
fn keys_of_the_usual_kinds_sign() {
    let rsa = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let p384 = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    for (root, mesh) in [(rsa(), rsa()), (p384(), p384()), (rsa(), KeyPair::generate().unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        company(root, mesh).write(folder.path());
        answers(&load(folder.path()).unwrap());
    }
    for unusual in [&PKCS_ED25519, &PKCS_ECDSA_P521_SHA512] {
        let folder = tempfile::tempdir().unwrap();
        company(KeyPair::generate().unwrap(), KeyPair::generate_for(unusual).unwrap()).write(folder.path());
        let error = load(folder.path()).err().unwrap().to_string();
        assert!(error.contains("of another kind than"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    ordinary().write(folder.path());
    std::fs::write(folder.path().join("ca-key.pem"), include_str!("../testdata/rsa-1024.key")).unwrap();
    assert!(matches!(load(folder.path()), Err(CaError::File { file, .. }) if file.ends_with("ca-key.pem")));
}

#[test]
fn keys_in_the_older_forms_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (key, root) = (include_str!("../testdata/sec1.key"), include_str!("../testdata/sec1.crt"));
    for (name, text) in [("ca-key.pem", key), ("ca-cert.pem", root), ("root-cert.pem", root), ("cert-chain.pem", root)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    answers(&load(folder.path()).unwrap());
}

#[test]
fn revocation_lists_must_be_of_all_authorities() {
    let company = ordinary();
    let [of_root, of_mesh] = company.lists(7, 2124);
    let folder = tempfile::tempdir().unwrap();
    company.write(folder.path());
    let with = |lists: &str| {
        std::fs::write(folder.path().join("ca-crl.pem"), lists).unwrap();
        load(folder.path())
    };
    let ca = with(&(of_root.clone() + &of_mesh)).unwrap();
    assert!(ca.revocation().is_some_and(|lists| lists.to_pem() == of_root.clone() + &of_mesh));
    let error = with(&of_mesh).err().unwrap().to_string();
    assert!(error.contains("nothing that it signs would be accepted"), "{error}");
    // Out of date: peers will say so, but what else is there to renew them with?
    let old = company.lists(7, 2025).concat();
    assert!(with(&old).is_ok());
}

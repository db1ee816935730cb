//! Certificates for tests: who signs them, and whom they are of.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

/// A certificate and its key.
pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("it can be signed");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    pub(crate) fn sign(&self, name: &str) -> Leaf {
        self.sign_with(name, &rcgen::PKCS_ECDSA_P256_SHA256, 1)
    }

    /// With a key of this kind, and this serial number.
    pub(crate) fn sign_with(&self, name: &str, kind: &'static SignatureAlgorithm, serial: u64) -> Leaf {
        let key = KeyPair::generate_for(kind).expect("a key can be made");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name is good");
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// A workload's: with a SPIFFE name beside its own.
    pub(crate) fn workload(&self, name: &str) -> Leaf {
        self.workload_for(name, Duration::from_secs(3600))
    }

    /// The same, valid for so long, in whole seconds.
    pub(crate) fn workload_for(&self, name: &str, valid: Duration) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name is good");
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than that");
        params.not_after = date_time_ymd(1970, 1, 1) + now + valid;
        let uri = format!("spiffe://cluster.local/ns/default/sa/{}", name.split('.').next().unwrap_or(name));
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("it is ASCII")));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// Whatever a certificate may say.
    pub(crate) fn issue(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// A list that says of one certificate that it is valid no more.
    pub(crate) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("it can be signed").pem().expect("it can be written")
    }
}

/// PEM as a YAML string in flow style.
pub(crate) fn quoted(pem: &str) -> String {
    format!("\"{}\"", pem.replace('\n', "\\n"))
}

impl Leaf {
    /// A client that presents this certificate, trusts `authority`, and offers these protocols.
    pub(crate) fn client(&self, authority: &Authority, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).expect("it is a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("they are there")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.der.clone()], PrivateKeyDer::Pkcs8(self.key.serialize_der().into()))
            .expect("key and certificate belong together");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// A TLS context's own certificate, in flow style.
    pub(crate) fn certificates(&self) -> String {
        let (chain, key) = (quoted(&self.pem), quoted(&self.key.serialize_pem()));
        format!(
            "tls_certificates: [{{certificate_chain: {{inline_string: {chain}}}, private_key: {{inline_string: {key}}}}}]"
        )
    }
}

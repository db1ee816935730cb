//! An authority and two workloads, as the files that every proxy can read.

use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Writes `ca.pem`, and for `client` and `server` each NAME.pem, NAME.key and both in NAME.both (as HAProxy wants them).
/// The keys are P-256. The names are SPIFFE ids, and DNS names for proxies that know no others.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    let key = KeyPair::generate()?;
    put("ca.pem", &params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    for name in ["client", "server"] {
        let mut params = CertificateParams::new([name.to_owned()])?;
        let id = format!("spiffe://cluster.local/ns/bench/sa/{name}");
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?.pem();
        put(&format!("{name}.pem"), &certificate)?;
        put(&format!("{name}.key"), &key.serialize_pem())?;
        put(&format!("{name}.both"), &(certificate + &key.serialize_pem()))?;
    }
    Ok(())
}

//! Who is at the other end of a finished TLS connection.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{SpiffeId, WorkloadName};

/// The names in a peer's certificate. Only as good as the check of the certificate, which the handshake makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    /// What the certificate says of the workload besides.
    pub workload: Option<WorkloadName>,
}

impl PeerIdentity {
    /// Empty when the certificate cannot be read or names nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
        names.workload = WorkloadName::of(certificate);
        let Ok(Some(extension)) = parsed.subject_alternative_name() else { return names };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => names.dns_sans.push((*name).to_owned()),
                _ => {}
            }
        }
        names
    }

    /// The peer of a finished connection, if it has shown a certificate. Takes either side's `rustls` connection.
    pub fn of_connection(connection: &rustls::CommonState) -> Option<Self> {
        connection.peer_certificates()?.first().map(Self::of)
    }

    /// The workload identity. X.509-SVID, section 2: a certificate with any other number of URI names than one has none.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        match self.uri_sans.as_slice() {
            [one] => one.parse().ok(),
            _ => None,
        }
    }
}

//! What a workload's certificate says of the workload besides its identity: the labels under which its peers count its traffic.
//!
//! It is the common name of the certificate's subject, by which SPIFFE and TLS decide nothing (SPIFFE X509-SVID, section 2; RFC
//! 9525, section 6.4.4): `/w:reviews-v1/c:reviews/r:v1/k:Kubernetes/a:reviews/v:v1`. Peers believe it as they believe the identity:
//! the authority has put it there. It goes with the connection, whatever is spoken on it, and costs nothing per request.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The common name of a workload's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadName(String);

/// What a certificate says of a workload; empty: unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkloadLabels<'a> {
    pub workload: &'a str,
    pub canonical_service: &'a str,
    pub canonical_revision: &'a str,
    pub cluster: &'a str,
    pub app: &'a str,
    pub version: &'a str,
}

/// Labels of Kubernetes are not longer; names of workloads may be, and are left out then.
const LONGEST: usize = 63;

impl WorkloadName {
    /// Leaves out what is unknown, and what would be read as something else.
    pub fn new(labels: &WorkloadLabels<'_>) -> Self {
        let parts = [
            ('w', labels.workload),
            ('c', labels.canonical_service),
            ('r', labels.canonical_revision),
            ('k', labels.cluster),
            ('a', labels.app),
            ('v', labels.version),
        ];
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let said = parts.into_iter().filter(|(_, text)| (1..=LONGEST).contains(&text.len()) && plain(text));
        Self(said.map(|(kind, text)| format!("/{kind}:{text}")).collect())
    }

    /// What a certificate says, if it says something: a renewed one says the same.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
        name.starts_with('/').then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_or_ambiguous_is_left_out() {
        let labels = WorkloadLabels {
            workload: "reviews-v1",
            canonical_service: "reviews",
            canonical_revision: "",
            cluster: "a/w:other",
            app: "rev,iews",
            version: "v1.2_3",
        };
        assert_eq!(WorkloadName::new(&labels).as_str(), "/w:reviews-v1/c:reviews/v:v1.2_3");
        let long = "x".repeat(64);
        assert_eq!(WorkloadName::new(&WorkloadLabels { workload: &long, ..Default::default() }).as_str(), "");
    }
}

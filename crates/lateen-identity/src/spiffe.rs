//! SPIFFE ids as Istio writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;

/// SPIFFE ID, section 2.3: at most 2048 bytes, the trust domain at most 255.
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

/// The identity of a workload. The parts are checked: an id cannot be made to say more than its three words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

/// Why a text or its parts are no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("`{0}` is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    #[error("`{0}` is not a trust domain (lower-case letters, digits, `.`, `-`, `_`)")]
    TrustDomain(String),
    #[error("`{0}` is not a {1}")]
    Name(String, &'static str),
}

impl SpiffeId {
    /// An identity of its parts.
    ///
    /// # Errors
    /// A part that could not stand in an id: trust domains by the SPIFFE ID standard (section 2.1), the names by Kubernetes'
    /// rule for them (RFC 1123).
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        if !is_trust_domain(trust_domain) {
            return Err(SpiffeError::TrustDomain(trust_domain.to_owned()));
        }
        if !is_label(namespace) {
            return Err(SpiffeError::Name(namespace.to_owned(), "namespace"));
        }
        if service_account.len() > 253 || !service_account.split('.').all(is_label) {
            return Err(SpiffeError::Name(service_account.to_owned(), "service account"));
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// The trust domain of a workload's SPIFFE id of any form, Istio's or another's (SPIFFE ID, section 2): a trust domain and a
/// path of at least one segment, without anything that could be read in two ways.
pub fn trust_domain_of(id: &str) -> Option<&str> {
    if id.len() > MAX_ID {
        return None;
    }
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(legal);
    (is_trust_domain(domain) && path.split('/').all(is_segment)).then_some(domain)
}

/// SPIFFE ID, section 2.1.
pub fn is_trust_domain(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_TRUST_DOMAIN).contains(&text.len()) && text.bytes().all(legal)
}

/// RFC 1123: up to 63 lower-case letters, digits and inner dashes. Dots separate labels, they are not part of one.
fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('-') && !text.ends_with('-')
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let form = || SpiffeError::Form(text.chars().take(MAX_ID).collect());
        if text.len() > MAX_ID {
            return Err(form());
        }
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(form)?.split('/');
        let mut next = || parts.next();
        match (next(), next(), next(), next(), next(), next()) {
            (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Self::new(domain, namespace, account)
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_writes() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "default", "bookinfo-reviews")
        );
        assert_eq!(id.to_string(), text);
        assert!("spiffe://td_1/ns/a/sa/robot.of.team".parse::<SpiffeId>().is_ok());
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "cluster.local/ns/default/sa/a",
            "SPIFFE://cluster.local/ns/default/sa/a",
            "spiffe://Cluster.local/ns/default/sa/a",
            "spiffe:///ns/default/sa/a",
            "spiffe://cluster.local:80/ns/default/sa/a",
            "spiffe://user@cluster.local/ns/default/sa/a",
            "spiffe://cluster.local/ns/default/sa/a/",
            "spiffe://cluster.local/ns/default/sa/a/b",
            "spiffe://cluster.local/ns/default/sa/",
            "spiffe://cluster.local/ns//sa/a",
            "spiffe://cluster.local/sa/a/ns/default",
            "spiffe://cluster.local/ns/de%66ault/sa/a",
            "spiffe://cluster.local/ns/default/sa/a?x",
            "spiffe://cluster.local/ns/default/sa/a#x",
            "spiffe://cluster.local/ns/default/sa/..",
            "spiffe://cluster.local/ns/-x/sa/a",
            "spiffe://cluster.local/ns/default/sa/a\0",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_of_other_forms_have_a_trust_domain_too() {
        assert_eq!(trust_domain_of("spiffe://example.org/billing/v2"), Some("example.org"));
        assert_eq!(trust_domain_of("spiffe://example.org/ns/a/sa/B_1"), Some("example.org"));
        for text in [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org/a\0",
            "spiffe://Example.org/a",
            "spiffe://example.org:1/a",
            "https://example.org/a",
        ] {
            assert_eq!(trust_domain_of(text), None, "{text}");
        }
    }

    #[test]
    fn parts_cannot_smuggle_more_parts_in() {
        assert!(SpiffeId::new("cluster.local", "default/sa/admin", "x").is_err());
        assert!(SpiffeId::new("cluster.local", "default", "x/../admin").is_err());
        assert!(SpiffeId::new("cluster.local/ns/other", "default", "x").is_err());
    }
}

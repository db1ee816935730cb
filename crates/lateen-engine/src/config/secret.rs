//! `envoy.extensions.transport_sockets.tls.v3.Secret`: certificates and roots that come by discovery.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::secret::Type;

use super::error::{At, ConfigError, refuse};
use super::tls::{self, Certificate, Crl, Trusted};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Certificate(Certificate),
    /// Whom to trust, and which of their certificates no more.
    Roots {
        trusted: Trusted,
        crl: Option<Crl>,
    },
}

impl Secret {
    pub fn from_xds(secret: &proto::Secret) -> Result<Self, Vec<ConfigError>> {
        let at = At::resource(&secret.name);
        let compiled = Self::compile(secret, &at);
        at.finish(compiled)
    }

    fn compile(secret: &proto::Secret, at: &At) -> Option<Self> {
        match secret.r#type.as_ref() {
            Some(Type::TlsCertificate(certificate)) => {
                tls::certificate(certificate, &at.field("tls_certificate")).map(Self::Certificate)
            }
            Some(Type::ValidationContext(context)) => {
                let at = at.field("validation_context");
                refuse!(at, context; match_typed_subject_alt_names, match_subject_alt_names, verify_certificate_spki,
                    verify_certificate_hash);
                let found = tls::context_of(context, &at);
                if found.trusted.is_none() && !at.has_errors() {
                    at.field("trusted_ca").error("is required");
                }
                Some(Self::Roots { trusted: found.trusted?, crl: found.crl })
            }
            Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => {
                at.error("must be a tls_certificate or a validation_context");
                None
            }
        }
    }
}

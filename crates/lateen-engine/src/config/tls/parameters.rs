//! `TlsParameters`: which versions, cipher suites and key exchange groups are offered.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::tls_parameters::TlsProtocol;

use super::super::error::{At, refuse};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// The choice of a context.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub minimum: TlsVersion,
    pub maximum: TlsVersion,
    /// For TLS 1.2, the most wanted first; none: all there are. Those of TLS 1.3 cannot be chosen, as in Envoy.
    pub suites: Option<Vec<Suite>>,
    /// The most wanted first; none: all there are.
    pub groups: Option<Vec<Group>>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { minimum: TlsVersion::V1_2, maximum: TlsVersion::V1_3, suites: None, groups: None }
    }
}

/// A cipher suite of TLS 1.2 that is spoken: ephemeral key exchange and authenticated encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    EcdsaAes128,
    RsaAes128,
    EcdsaAes256,
    RsaAes256,
    EcdsaChaCha20,
    RsaChaCha20,
}

/// BoringSSL's names; with none, the suite is one of Envoy's that is not spoken here: its key exchange or its encryption is
/// not what one offers today. A list may name it beside others.
const SUITES: &[(&str, Option<Suite>)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", Some(Suite::EcdsaAes128)),
    ("ECDHE-RSA-AES128-GCM-SHA256", Some(Suite::RsaAes128)),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", Some(Suite::EcdsaAes256)),
    ("ECDHE-RSA-AES256-GCM-SHA384", Some(Suite::RsaAes256)),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", Some(Suite::EcdsaChaCha20)),
    ("ECDHE-RSA-CHACHA20-POLY1305", Some(Suite::RsaChaCha20)),
    ("ECDHE-ECDSA-AES128-SHA", None),
    ("ECDHE-RSA-AES128-SHA", None),
    ("ECDHE-ECDSA-AES256-SHA", None),
    ("ECDHE-RSA-AES256-SHA", None),
    ("ECDHE-PSK-AES128-CBC-SHA", None),
    ("ECDHE-PSK-AES256-CBC-SHA", None),
    ("ECDHE-PSK-CHACHA20-POLY1305", None),
    ("AES128-GCM-SHA256", None),
    ("AES256-GCM-SHA384", None),
    ("AES128-SHA", None),
    ("AES256-SHA", None),
    ("PSK-AES128-CBC-SHA", None),
    ("PSK-AES256-CBC-SHA", None),
    ("DES-CBC3-SHA", None),
];

/// A key exchange group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    X25519MlKem768,
    X25519,
    P256,
    P384,
}

/// Envoy's names; with none, the group is not spoken here.
const GROUPS: &[(&str, Option<Group>)] = &[
    ("X25519MLKEM768", Some(Group::X25519MlKem768)),
    ("X25519", Some(Group::X25519)),
    ("P-256", Some(Group::P256)),
    ("P-384", Some(Group::P384)),
    ("P-521", None),
];

impl Parameters {
    pub(super) fn from_xds(parameters: Option<&proto::TlsParameters>, at: &At) -> Self {
        let Some(parameters) = parameters else { return Self::default() };
        refuse!(at, parameters; signature_algorithms, compliance_policies);
        let (minimum, maximum) = versions(parameters, at);
        // `[A|B]`: as welcome as each other. They stand in the order of the list here.
        let names = parameters.cipher_suites.iter().flat_map(|names| names.trim_matches(['[', ']']).split('|'));
        let suites = choice(names, SUITES, &at.field("cipher_suites"), "cipher suite");
        let suites = suites.filter(|suites| {
            let is_left = !suites.is_empty() || minimum > TlsVersion::V1_2;
            if !is_left {
                at.field("cipher_suites").error("none of them is spoken, which leaves nothing for TLS 1.2");
            }
            is_left
        });
        let names = parameters.ecdh_curves.iter().map(String::as_str);
        let groups = choice(names, GROUPS, &at.field("ecdh_curves"), "key exchange group");
        if groups.as_ref().is_some_and(Vec::is_empty) {
            at.field("ecdh_curves").error("none of them is spoken");
        }
        Self { minimum, maximum, suites, groups }
    }
}

/// The members of a list that are spoken; none where there is no list.
fn choice<'a, T: Copy>(
    names: impl Iterator<Item = &'a str>,
    known: &[(&str, Option<T>)],
    at: &At,
    what: &str,
) -> Option<Vec<T>> {
    let mut out = None;
    for name in names {
        let out: &mut Vec<T> = out.get_or_insert_default();
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, spoken)) => out.extend(*spoken),
            None => at.error(format!("`{name}` is the name of no {what}")),
        }
    }
    out
}

fn versions(parameters: &proto::TlsParameters, at: &At) -> (TlsVersion, TlsVersion) {
    let minimum = match parameters.tls_minimum_protocol_version() {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            at.field("tls_minimum_protocol_version").error("versions before TLS 1.2 are not spoken");
            TlsVersion::V1_2
        }
    };
    let maximum = match parameters.tls_maximum_protocol_version() {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            at.field("tls_maximum_protocol_version").error("versions before TLS 1.2 are not spoken");
            TlsVersion::V1_3
        }
    };
    if minimum > maximum {
        at.error("the minimum version is above the maximum");
    }
    (minimum, maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(suites: &[&str], groups: &[&str]) -> Result<Parameters, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let message = proto::TlsParameters {
            cipher_suites: owned(suites),
            ecdh_curves: owned(groups),
            ..proto::TlsParameters::default()
        };
        let at = At::resource("r");
        let found = Parameters::from_xds(Some(&message), &at);
        at.finish(Some(found)).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_choose_among_what_is_spoken() {
        let found = parameters(&[], &[]).expect("no list is a good list");
        assert_eq!((found.suites, found.groups), (None, None));
        let suites = ["AES128-GCM-SHA256", "[ECDHE-RSA-AES256-GCM-SHA384|ECDHE-ECDSA-CHACHA20-POLY1305]"];
        let found = parameters(&suites, &["P-521", "P-384", "X25519"]).expect("some of them are spoken");
        assert_eq!(found.suites, Some(vec![Suite::RsaAes256, Suite::EcdsaChaCha20]));
        assert_eq!(found.groups, Some(vec![Group::P384, Group::X25519]));
    }

    #[test]
    fn what_is_unknown_or_leaves_nothing_is_refused() {
        for (suites, groups, reason) in [
            (&["NULL-MD5"][..], &[][..], "r: cipher_suites: `NULL-MD5` is the name of no cipher suite"),
            (&["AES128-SHA"], &[], "r: cipher_suites: none of them is spoken, which leaves nothing for TLS 1.2"),
            (&[], &["P-521"], "r: ecdh_curves: none of them is spoken"),
            (&[], &["Q"], "r: ecdh_curves: `Q` is the name of no key exchange group"),
        ] {
            let refused = parameters(suites, groups).expect_err(reason);
            assert_eq!(refused[0], reason);
        }
    }
}

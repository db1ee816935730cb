//! An authority that somebody else keeps: a folder, or the data of a Secret, with Istio's `cacerts` names or those of a TLS
//! Secret as cert-manager makes them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::assemble::{bundle, certificates, file, key};
use super::{CaError, CertificateAuthority, assemble};
use crate::Revocation;

/// No file of an authority is longer: 256 certificates of 4 KiB.
const MAX_TEXT: u64 = 1 << 20;

/// One name scheme: the signing certificate, its key, the roots, and the certificates between.
struct Scheme {
    certificate: &'static str,
    key: &'static str,
    roots: &'static str,
    /// None: behind the signing certificate, in its text.
    chain: Option<&'static str>,
}

/// Istio: "Plug in CA certificates", and `cacerts` of type `kubernetes.io/tls`. The first that is there counts.
const SCHEMES: [Scheme; 2] = [
    Scheme { certificate: "ca-cert.pem", key: "ca-key.pem", roots: "root-cert.pem", chain: Some("cert-chain.pem") },
    Scheme { certificate: "tls.crt", key: "tls.key", roots: "ca.crt", chain: None },
];

/// Revocation lists, with either scheme; there need not be any.
const REVOKED: [&str; 2] = ["ca-crl.pem", "ca.crl"];

/// The texts of an authority, by their names.
pub struct Parts {
    /// Where they are, for messages.
    place: String,
    texts: BTreeMap<String, Vec<u8>>,
}

impl Parts {
    /// Every name that counts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let of = |scheme: &'static Scheme| {
            [Some(scheme.certificate), Some(scheme.key), Some(scheme.roots), scheme.chain].into_iter().flatten()
        };
        SCHEMES.iter().flat_map(of).chain(REVOKED)
    }

    /// Reads the files of a folder that have such names.
    ///
    /// # Errors
    /// A file that is there and cannot be read, or is too long.
    pub fn read(folder: &Path) -> Result<Self, CaError> {
        let mut texts = BTreeMap::new();
        for name in Self::names() {
            let path = folder.join(name);
            let shown = assemble::shown(&path);
            match std::fs::metadata(&path) {
                Ok(found) if found.len() > MAX_TEXT => return Err(file(&shown, "it is too long")),
                Ok(_) => {
                    let text = std::fs::read(&path).map_err(|error| file(&shown, error))?;
                    texts.insert(name.to_owned(), text);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(file(&shown, error)),
            }
        }
        Ok(Self { place: assemble::shown(folder), texts })
    }

    /// Texts from elsewhere; `place` is what messages call it.
    pub fn new(place: &str, texts: BTreeMap<String, Vec<u8>>) -> Self {
        Self { place: place.to_owned(), texts }
    }

    fn name(&self, part: &str) -> String {
        format!("{}/{part}", self.place)
    }
}

impl CertificateAuthority {
    /// A plugged-in authority, which must be whole.
    ///
    /// # Errors
    /// Missing parts, by their names; parts that cannot be read or do not fit together.
    pub fn plugged_in(parts: &Parts) -> Result<Self, CaError> {
        let has = |name: &str| parts.texts.contains_key(name);
        let scheme = SCHEMES.iter().find(|scheme| has(scheme.certificate) || has(scheme.key)).unwrap_or(&SCHEMES[0]);
        let needed = [Some(scheme.certificate), Some(scheme.key), Some(scheme.roots), scheme.chain];
        let missing: Vec<&str> = needed.into_iter().flatten().filter(|name| !has(name)).collect();
        if !missing.is_empty() {
            return Err(file(&parts.place, format!("{} missing from the authority", missing.join(", "))));
        }
        let text = |name: &str| parts.texts.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut signing = certificates(&parts.name(scheme.certificate), text(scheme.certificate))?;
        let chain = match scheme.chain {
            Some(chain) if signing.len() == 1 => certificates(&parts.name(chain), text(chain))?,
            Some(_) => return Err(file(&parts.name(scheme.certificate), "one certificate is expected")),
            None => signing.split_off(1),
        };
        let roots = bundle(&parts.name(scheme.roots), text(scheme.roots))?;
        let key = key(&parts.name(scheme.key), text(scheme.key))?;
        let lists = REVOKED
            .into_iter()
            .find(|name| has(name))
            .map(|name| Revocation::from_pem(text(name)).map_err(|error| file(&parts.name(name), error)));
        Self::of(&signing[0], key, &chain, roots, lists.transpose()?)
    }
}

//! An authority of our own: its root and key in a folder, and how one root takes over from another without anybody noticing.
//!
//! ```text
//!              root-cert.pem     ca-key.pem    next-key.pem
//! settled      A                 A
//! introduced   A, B              A             B              everybody learns to trust B
//! retiring     A, B              B                            what A has signed is replaced, or ends
//! settled      B                 B
//! ```
//!
//! Which of the roots signs is told by whose key `ca-key.pem` is. Each step changes one file that counts, by renaming: a crash
//! leaves the folder before a step or after it.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::assemble::{bounds, bundle, file, key, shown};
use super::{BACKDATE, CaError, CertificateAuthority, DEFAULT_LIFETIME, MAX_LIFETIME, authority, new_root};
use crate::TrustBundle;
use crate::files::{check_private, write_atomically};

const ROOTS: &str = "root-cert.pem";
const KEY: &str = "ca-key.pem";
const NEXT_KEY: &str = "next-key.pem";

/// The part of a root's life that is left when the next one is introduced: a fifth.
const LEFT: u32 = 5;

/// Where an authority stands between one root and the next, and when it goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    pub stage: Stage,
    pub due: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One root.
    Settled,
    /// The next root is trusted, and signs nothing yet.
    Introduced,
    /// The next root signs, and the last one is still trusted.
    Retiring,
}

/// What is in the folder.
struct Folder<'a> {
    path: &'a Path,
    roots: TrustBundle,
    key: KeyPair,
    /// The next root's, which is among the roots.
    next: Option<KeyPair>,
}

impl CertificateAuthority {
    /// The authority in this folder; an empty folder gets a new root.
    ///
    /// # Errors
    /// Files that cannot be read or written or do not fit together, and keys that others than their owner can read. Half an
    /// authority is never replaced: what trusts its root would be cut off.
    pub fn load_or_create(path: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, CaError> {
        let (has_roots, has_key) = (path.join(ROOTS).exists(), path.join(KEY).exists());
        match (has_roots, has_key) {
            (true, true) => {}
            (false, false) => create(path, trust_domain, now)?,
            (has_roots, _) => {
                let missing = if has_roots { KEY } else { ROOTS };
                return Err(file(
                    &shown(&path.join(missing)),
                    "missing, while the other half of the authority is there",
                ));
            }
        }
        Folder::read(path)?.load()
    }

    /// Takes the next step from one root to the next.
    ///
    /// # Errors
    /// As [`Self::load_or_create`].
    pub fn advance(path: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, CaError> {
        let folder = Folder::read(path)?;
        match folder.stage() {
            Stage::Settled => folder.introduce(trust_domain, now)?,
            Stage::Introduced => folder.take_over()?,
            Stage::Retiring => folder.retire()?,
        }
        Folder::read(path)?.load()
    }
}

/// The key first: a root without a key says that something is missing, a key without a root says nothing to anybody, and
/// neither is replaced.
fn create(path: &Path, trust_domain: &str, now: SystemTime) -> Result<(), CaError> {
    std::fs::create_dir_all(path).map_err(|error| file(&shown(path), error))?;
    let (root, key) = new_root(trust_domain, now)?;
    write_key(&path.join(KEY), &key)?;
    write_roots(path, &TrustBundle::new([root]).map_err(authority)?)
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), CaError> {
    write_atomically(path, key.serialize_pem().as_bytes(), 0o600).map_err(|error| file(&shown(path), error))
}

fn write_roots(path: &Path, roots: &TrustBundle) -> Result<(), CaError> {
    let path = path.join(ROOTS);
    write_atomically(&path, roots.to_pem().as_bytes(), 0o644).map_err(|error| file(&shown(&path), error))
}

fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    check_private(path).map_err(|error| file(&shown(path), error))?;
    key(&shown(path), &std::fs::read(path).map_err(|error| file(&shown(path), error))?)
}

impl<'a> Folder<'a> {
    fn read(path: &'a Path) -> Result<Self, CaError> {
        let roots_file = path.join(ROOTS);
        let text = std::fs::read(&roots_file).map_err(|error| file(&shown(&roots_file), error))?;
        let roots = bundle(&shown(&roots_file), &text)?;
        let key = read_key(&path.join(KEY))?;
        let next = path.join(NEXT_KEY);
        let next = if next.exists() { Some(read_key(&next)?) } else { None };
        // One that was never introduced, or has taken over already, is what a crash has left.
        let next = next.filter(|next| root_of(&roots, next).is_some() && !is_same(next, &key));
        Ok(Self { path, roots, key, next })
    }

    fn stage(&self) -> Stage {
        match (&self.next, self.roots.roots().len()) {
            (Some(_), _) => Stage::Introduced,
            (None, 1) => Stage::Settled,
            (None, _) => Stage::Retiring,
        }
    }

    fn signing_root(&self) -> Result<&CertificateDer<'static>, CaError> {
        root_of(&self.roots, &self.key)
            .ok_or_else(|| file(&shown(&self.path.join(ROOTS)), format!("no certificate is of the key in {KEY}")))
    }

    fn load(self) -> Result<CertificateAuthority, CaError> {
        let root = self.signing_root()?.clone();
        let (stage, due) = (self.stage(), self.due()?);
        let ca = CertificateAuthority::of(&root, self.key, &[], self.roots, None)?;
        Ok(CertificateAuthority { rotation: Some(Rotation { stage, due }), ..ca })
    }

    /// When the next step is due. What can be done no more, such as signing with a root that has expired, is not waited for.
    fn due(&self) -> Result<SystemTime, CaError> {
        let (from, to) = times(self.signing_root()?)?;
        Ok(match self.stage() {
            Stage::Settled => to - to.duration_since(from).unwrap_or_default() / LEFT,
            // By then everybody has asked for a certificate, and got the roots with it.
            Stage::Introduced => {
                let next = self.next.as_ref().and_then(|next| root_of(&self.roots, next));
                let introduced = next.map(times).transpose()?.map_or(from, |(from, _)| from + BACKDATE);
                (introduced + DEFAULT_LIFETIME).min(to)
            }
            // By then everything that the last root has signed is over, or the root itself.
            Stage::Retiring => {
                let key = self.path.join(KEY);
                let changed = std::fs::metadata(&key).and_then(|found| found.modified());
                let changed = changed.map_err(|error| file(&shown(&key), error))?;
                let others = self.roots.roots().iter().filter(|root| !is_of(root, &self.key));
                let ends: Result<Vec<_>, CaError> = others.map(|root| Ok(times(root)?.1)).collect();
                (changed + MAX_LIFETIME).min(ends?.into_iter().max().unwrap_or(changed))
            }
        })
    }

    fn introduce(&self, trust_domain: &str, now: SystemTime) -> Result<(), CaError> {
        let (root, key) = new_root(trust_domain, now)?;
        write_key(&self.path.join(NEXT_KEY), &key)?;
        let next = TrustBundle::new([root]).map_err(authority)?;
        write_roots(self.path, &self.roots.merge(&next).map_err(authority)?)
    }

    fn take_over(&self) -> Result<(), CaError> {
        let Some(next) = &self.next else { return Ok(()) };
        // Written anew, not renamed: from when on it signs is told by when the file was written.
        write_key(&self.path.join(KEY), next)?;
        let spent = self.path.join(NEXT_KEY);
        std::fs::remove_file(&spent).map_err(|error| file(&shown(&spent), error))
    }

    fn retire(&self) -> Result<(), CaError> {
        write_roots(self.path, &TrustBundle::new([self.signing_root()?.clone()]).map_err(authority)?)
    }
}

fn root_of<'a>(roots: &'a TrustBundle, key: &KeyPair) -> Option<&'a CertificateDer<'static>> {
    roots.roots().iter().find(|root| is_of(root, key))
}

fn is_of(root: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(root).is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

fn is_same(one: &KeyPair, other: &KeyPair) -> bool {
    one.subject_public_key_info() == other.subject_public_key_info()
}

fn times(root: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), CaError> {
    let (_, parsed) = X509Certificate::from_der(root).map_err(authority)?;
    Ok(bounds(&parsed))
}

/// For tests of this module.
#[cfg(test)]
pub(super) fn age_key(path: &Path, by: std::time::Duration) {
    let file = std::fs::File::options().write(true).open(path.join(KEY)).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

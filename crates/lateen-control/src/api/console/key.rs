//! The key by which the owner of the mesh changes things through the console: a file that only the owner reads. Whoever can
//! open the port on loopback may be another user of this machine, or a program of one; they may look.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lateen_identity::files::{check_private, write_atomically};
use sha2::{Digest as _, Sha256};

/// In the state directory.
pub const FILE: &str = "console.key";

/// Bytes of chance in a key.
const LENGTH: usize = 24;

/// What a key that somebody shows is held against. Comparing digests takes as long for a wrong key that is nearly right.
#[derive(Clone)]
pub struct ConsoleKey([u8; 32]);

impl ConsoleKey {
    /// The one of an earlier run, so that a console that is open goes on after a restart; or a new one.
    ///
    /// # Errors
    /// A file that cannot be read or written, or that others can read.
    pub fn load_or_create(state_dir: &Path) -> std::io::Result<Self> {
        let path = state_dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => {
                check_private(&path)?;
                text
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; LENGTH]>());
                write_atomically(&path, key.as_bytes(), 0o600)?;
                key
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Sha256::digest(text.trim()).into()))
    }

    pub(super) fn is(&self, shown: &[u8]) -> bool {
        <[u8; 32]>::from(Sha256::digest(shown)) == self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_kept_and_is_the_owner_s() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = ConsoleKey::load_or_create(folder.path()).expect("it is made");
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("it is written");
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert!(text.len() >= 32 && made.is(text.as_bytes()) && !made.is(b"") && !made.is(b"x"));
        assert!(ConsoleKey::load_or_create(folder.path()).expect("it is read").is(text.as_bytes()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it can be changed");
        assert!(ConsoleKey::load_or_create(folder.path()).is_err(), "others have read it");
    }
}

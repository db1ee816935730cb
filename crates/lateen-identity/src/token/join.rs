//! Join tokens: by which something that is no pod, a laptop or a virtual machine, proves once who it is. What it then gets
//! renews itself by its own certificate.
//!
//! A token is 256 random bits. Only its SHA-256 is kept: who reads the file learns whom tokens are for, and no token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{TokenError, seconds};
use crate::files::{check_private, write_atomically};

/// How such a token begins.
pub const PREFIX: &str = "lateen-join.";
/// How long a token waits to be used, at most.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
const FILE: &str = "join-tokens.json";
/// So many may wait at a time.
const MOST: usize = 1000;

/// The tokens that wait to be used, kept in a file over restarts.
pub struct JoinTokens {
    path: PathBuf,
    /// By their SHA-256, in hexadecimal.
    waiting: Mutex<Waiting>,
}

type Waiting = BTreeMap<String, Joining>;

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joining {
    pub namespace: String,
    pub service_account: String,
    /// Seconds since 1970.
    ends: u64,
}

/// A token that has been taken: spent, unless it is given back.
#[derive(Debug)]
pub struct Taken {
    hash: String,
    pub joining: Joining,
}

impl JoinTokens {
    /// Those that wait in this folder.
    ///
    /// # Errors
    /// A file that cannot be read, or that others could read.
    pub fn load(folder: &Path) -> Result<Self, TokenError> {
        let path = folder.join(FILE);
        let file = |reason: String| TokenError::File { file: path.display().to_string(), reason };
        let waiting = match std::fs::read(&path) {
            Ok(text) => {
                check_private(&path).map_err(|error| file(error.to_string()))?;
                serde_json::from_slice(&text).map_err(|error| file(error.to_string()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Waiting::new(),
            Err(error) => return Err(file(error.to_string())),
        };
        Ok(Self { path, waiting: Mutex::new(waiting) })
    }

    /// A new token, and when it is over. Blocks.
    ///
    /// # Errors
    /// Too many that wait, a lifetime that is too long, or a file that cannot be written.
    pub fn create(
        &self,
        namespace: &str,
        service_account: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(String, SystemTime), TokenError> {
        if lifetime.is_zero() || lifetime > LONGEST {
            return Err(TokenError::Invalid(format!("a join token waits from 1 to {} s", LONGEST.as_secs())));
        }
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let joining = Joining {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            ends: seconds(now + lifetime),
        };
        let mut waiting = self.lock();
        let mut next = waiting.clone();
        next.retain(|_, other| seconds(now) < other.ends);
        if next.len() >= MOST {
            return Err(TokenError::Invalid(format!("{MOST} join tokens wait already")));
        }
        next.insert(hash(&token), joining);
        self.write(&next)?;
        *waiting = next;
        Ok((token, now + lifetime))
    }

    /// Takes a token: nobody else can from now on. Blocks.
    ///
    /// # Errors
    /// One that is unknown, over or spent (which of it is not told), or a file that cannot be written: then it stays.
    pub fn take(&self, token: &str, now: SystemTime) -> Result<Taken, TokenError> {
        let hash = hash(token);
        let mut waiting = self.lock();
        let mut next = waiting.clone();
        let joining = next.remove(&hash).filter(|joining| seconds(now) < joining.ends).ok_or(TokenError::Spent)?;
        self.write(&next)?;
        *waiting = next;
        Ok(Taken { hash, joining })
    }

    /// Makes a token good again: it was taken, and nothing was had for it. Blocks.
    ///
    /// # Errors
    /// A file that cannot be written: then it is spent.
    pub fn give_back(&self, taken: Taken) -> Result<(), TokenError> {
        let mut waiting = self.lock();
        let mut next = waiting.clone();
        next.insert(taken.hash, taken.joining);
        self.write(&next)?;
        *waiting = next;
        Ok(())
    }

    fn write(&self, waiting: &Waiting) -> Result<(), TokenError> {
        let file = |reason: String| TokenError::File { file: self.path.display().to_string(), reason };
        let text = serde_json::to_vec(waiting).map_err(|error| file(error.to_string()))?;
        write_atomically(&self.path, &text, 0o600).map_err(|error| file(error.to_string()))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // It is replaced as a whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> String {
    sha2::Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_good_once_and_only_its_hash_is_kept() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let tokens = JoinTokens::load(folder.path()).unwrap();
        let (token, ends) = tokens.create("default", "laptop", HOUR, now).unwrap();
        assert_eq!(ends, now + HOUR);
        let kept = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(kept.contains("laptop") && !kept.contains(token.strip_prefix(PREFIX).unwrap()), "{kept}");
        // Over a restart.
        let tokens = JoinTokens::load(folder.path()).unwrap();
        let taken = tokens.take(&token, now).unwrap();
        assert_eq!((&*taken.joining.namespace, &*taken.joining.service_account), ("default", "laptop"));
        assert!(matches!(tokens.take(&token, now), Err(TokenError::Spent)));
        tokens.give_back(taken).unwrap();
        assert!(tokens.take(&token, now).is_ok());
        assert!(matches!(JoinTokens::load(folder.path()).unwrap().take(&token, now), Err(TokenError::Spent)));
    }

    #[test]
    fn a_token_that_is_over_or_was_never_made_is_good_for_nothing() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let tokens = JoinTokens::load(folder.path()).unwrap();
        let (token, _) = tokens.create("default", "laptop", HOUR, now).unwrap();
        assert!(matches!(tokens.take(&token, now + HOUR), Err(TokenError::Spent)));
        for other in ["", PREFIX, "lateen-join.AAAA", &token[..token.len() - 1]] {
            assert!(matches!(tokens.take(other, now), Err(TokenError::Spent)), "{other}");
        }
        for lifetime in [Duration::ZERO, LONGEST + HOUR] {
            assert!(matches!(tokens.create("default", "a", lifetime, now), Err(TokenError::Invalid(_))));
        }
    }

    #[test]
    fn there_is_an_end_to_how_many_wait() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let tokens = JoinTokens::load(folder.path()).unwrap();
        let entry = |ends| Joining { namespace: "a".to_owned(), service_account: "b".to_owned(), ends };
        *tokens.lock() = (0..MOST).map(|number| (number.to_string(), entry(seconds(now) + 60))).collect();
        assert!(matches!(tokens.create("default", "a", HOUR, now), Err(TokenError::Invalid(_))));
        // Those that are over make room.
        assert!(tokens.create("default", "a", HOUR, now + HOUR).is_ok());
        assert_eq!(tokens.lock().len(), 1);
    }
}

//! What must be in no log, dump or page of a mesh, whatever happens in it: keys, and tokens that somebody could use.

use std::path::Path;

/// Texts that are secrets in any mesh, and those of this one.
pub(crate) struct Secrets {
    /// Lines of the private keys that the control plane keeps.
    keys: Vec<String>,
}

impl Secrets {
    /// Of the mesh with this state directory.
    pub(crate) fn of(state: &Path) -> Self {
        let files = std::fs::read_dir(state.join("ca")).into_iter().flatten().filter_map(Result::ok);
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let private = texts.filter(|text| text.contains("PRIVATE KEY"));
        let keys =
            private.flat_map(|text| text.lines().filter(|line| is_base64(line)).map(str::to_owned).collect::<Vec<_>>());
        Self { keys: keys.collect() }
    }

    /// How many lines of keys are known, so that a test can tell that it looks for something.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The first secret in a text, with what stands around it.
    pub(crate) fn found_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        let key = self.keys.iter().find_map(|key| text.find(key.as_str()));
        let at = key.or_else(|| private_key(text)).or_else(|| token(text))?;
        let lines = text.get(..at).map_or(0, |before| before.rfind('\n').map_or(0, |end| end + 1));
        text.get(lines..).and_then(|rest| rest.lines().next())
    }
}

fn is_base64(line: &str) -> bool {
    line.len() > 20 && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// A private key in PEM.
fn private_key(text: &str) -> Option<usize> {
    text.find("PRIVATE KEY-----")
}

/// A signed JSON Web Token: three parts in base64url, the first two of them objects.
fn token(text: &str) -> Option<usize> {
    text.match_indices("eyJ").map(|(at, _)| at).find(|at| {
        let rest = &text[*at..];
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let end = rest.bytes().position(|byte| !is_of_token(byte)).unwrap_or(rest.len());
        let parts: Vec<&str> = rest[..end].split('.').collect();
        matches!(parts[..], [head, payload, signature, ..] if head.len() > 10 && payload.starts_with("eyJ") && signature.len() > 20)
    })
}

#[test]
fn secrets_are_seen_where_they_are() {
    let secrets = Secrets { keys: vec!["MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg".to_owned()] };
    let signature = "x".repeat(43);
    for text in [
        "a\n-----BEGIN EC PRIVATE KEY-----\nx",
        "{\"inline\": \"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\"}",
        &format!("authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ1cyJ9.{signature}\n"),
    ] {
        assert!(secrets.found_in(text).is_some(), "{text}");
    }
    for text in ["", "-----BEGIN CERTIFICATE-----\nMIIB", "eyJ", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ1cyJ9.[redacted]"] {
        assert_eq!(secrets.found_in(text), None, "{text}");
    }
}

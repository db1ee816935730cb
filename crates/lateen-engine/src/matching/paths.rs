//! Path normalisation, applied once, before both policies and routes look at the path, so that they cannot see different
//! ones. What HCM's `normalize_path`, `merge_slashes` and `path_with_escaped_slashes_action` ask for.

use std::borrow::Cow;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalization {
    /// RFC 3986 section 6: dot segments (also with parameters, `..;a`), escapes of unreserved characters; backslashes
    /// become slashes, and what may not stand in a path is escaped.
    pub dot_segments: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// What to do about `%2F` and `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    /// Unescape, and send the client to the new path.
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// Route this.
    Path(Cow<'a, str>),
    /// Answer with a redirect to this path.
    Redirect(String),
    /// Answer 400.
    Rejected,
}

impl Normalization {
    /// Normalises path and query (`target`); the query is left alone. A fragment is none of a server's business (RFC 9112
    /// section 3.2): Envoy rejects it whatever the rules.
    pub fn apply<'a>(&self, target: &'a str) -> Normalized<'a> {
        if target.contains('#') {
            return Normalized::Rejected;
        }
        let (path, rest) = target.split_at(target.find('?').unwrap_or(target.len()));
        if !path.starts_with('/') {
            return Normalized::Path(Cow::Borrowed(target));
        }
        let mut current = Cow::Borrowed(path);
        let mut redirect = false;
        if self.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(&current) {
            match self.escaped_slashes {
                EscapedSlashes::Reject => return Normalized::Rejected,
                EscapedSlashes::UnescapeAndRedirect => redirect = true,
                EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
            }
            current = Cow::Owned(unescape_slashes(&current));
        }
        if self.dot_segments {
            match canonical(&current) {
                Some(canonical) => {
                    if canonical != current {
                        current = Cow::Owned(canonical);
                    }
                }
                None => return Normalized::Rejected,
            }
        }
        if self.merge_slashes && current.contains("//") {
            current = Cow::Owned(merged(&current));
        }
        if redirect {
            return Normalized::Redirect(format!("{current}{rest}"));
        }
        match current {
            Cow::Borrowed(_) => Normalized::Path(Cow::Borrowed(target)),
            Cow::Owned(path) => Normalized::Path(Cow::Owned(path + rest)),
        }
    }
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(is_escaped_slash)
}

fn is_escaped_slash(window: &[u8]) -> bool {
    window[0] == b'%' && (window[1..].eq_ignore_ascii_case(b"2f") || window[1..].eq_ignore_ascii_case(b"5c"))
}

fn unescape_slashes(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        let escaped = rest.as_bytes().get(..3).filter(|window| is_escaped_slash(window));
        match escaped {
            Some(window) => {
                result.push(if window[1] == b'2' { '/' } else { '\\' });
                rest = &rest[3..];
            }
            None => {
                result.push('%');
                rest = &rest[1..];
            }
        }
    }
    result + rest
}

/// Backslashes turned, unreserved escapes opened, dot segments resolved. A broken escape stays as it is. None for an escaped
/// NUL, and where opening an escape would make a good one of a broken one before it (`%%32e`): what is behind would open that.
fn canonical(path: &str) -> Option<String> {
    let mut opened = String::with_capacity(path.len());
    let mut broken = Vec::new();
    let mut rest = path.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => opened.push('/'),
            '%' => match hex_pair(rest.as_str()) {
                Some(0) => return None,
                Some(byte) if is_unreserved(byte) => {
                    opened.push(char::from(byte));
                    rest.nth(1);
                }
                Some(_) => opened.push('%'),
                None => {
                    broken.push(opened.len() + 1);
                    opened.push('%');
                }
            },
            '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}' => opened.push_str(&format!("%{:02X}", u32::from(character))),
            other => opened.push(other),
        }
    }
    if broken.iter().any(|behind| hex_pair(&opened[*behind..]).is_some()) {
        return None;
    }
    Some(without_dot_segments(&opened))
}

/// The byte that two hexadecimal digits at the start stand for.
fn hex_pair(text: &str) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = text.as_bytes().get(..2)?;
    Some(digit(pair[0])? * 16 + digit(pair[1])?)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 5.2.4. Empty segments stay. A dot segment is one with parameters, too: some servers take `..;a` for
/// `..`, and would serve another path than policies saw.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment.split(';').next().unwrap_or_default() {
            "." | ".." => {
                if segment.starts_with("..") {
                    kept.pop();
                }
                // A dot segment at the end leaves its slash.
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut result = String::with_capacity(path.len());
    for segment in kept {
        result.push('/');
        result.push_str(segment);
    }
    if result.is_empty() { "/".to_owned() } else { result }
}

fn merged(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !result.ends_with('/') {
            result.push(character);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Normalization =
        Normalization { dot_segments: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    fn path(rule: Normalization, target: &str) -> String {
        match rule.apply(target) {
            Normalized::Path(path) => path.into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn istio_base() {
        let cases = [
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2Fb%5cc", "/a%2Fb%5cc"),
            ("/a\\b", "/a/b"),
            ("//a//b", "//a//b"),
            ("/%41%7e%2d?%41=/../", "/A~-?%41=/../"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a//../b", "/a/b"),
            ("/a/..;/b", "/b"),
            ("/a/.;x=1/b", "/a/b"),
            ("/..;a", "/"),
            ("/a/%2e%2e;/b", "/b"),
            ("/a/.\\..;\\b", "/b"),
            ("/a;x/../b;c", "/b;c"),
            ("/a/...;/b", "/a/...;/b"),
            ("/a%zz/%4", "/a%zz/%4"),
            ("/%252e", "/%252e"),
            ("/a{b}|\"^`<>", "/a%7Bb%7D%7C%22%5E%60%3C%3E"),
            ("/a!$&'()*+,;=:@b", "/a!$&'()*+,;=:@b"),
            ("/a?{b}/../%zz", "/a?{b}/../%zz"),
            ("/", "/"),
            ("*", "*"),
        ];
        for (from, to) in cases {
            assert_eq!(path(BASE, from), to, "{from}");
        }
        for bad in ["/a%00", "/a/%%32e/b", "/a/%2%65", "/%%35c"] {
            assert_eq!(BASE.apply(bad), Normalized::Rejected, "{bad}");
        }
    }

    #[test]
    fn fragments_are_rejected_whatever_the_rules() {
        for rule in [BASE, Normalization::default()] {
            assert_eq!(rule.apply("/a#b"), Normalized::Rejected);
            assert_eq!(rule.apply("/a?b#c"), Normalized::Rejected);
        }
        assert_eq!(path(Normalization::default(), "/a/../%2e{"), "/a/../%2e{");
    }

    #[test]
    fn escaped_slashes_as_told() {
        let rule = |escaped_slashes| Normalization { dot_segments: true, merge_slashes: true, escaped_slashes };
        assert_eq!(path(rule(EscapedSlashes::UnescapeAndForward), "/a%2F..%5Cadmin"), "/admin");
        assert_eq!(rule(EscapedSlashes::Reject).apply("/a%2fb"), Normalized::Rejected);
        assert_eq!(rule(EscapedSlashes::UnescapeAndRedirect).apply("/a%2fb?c"), Normalized::Redirect("/a/b?c".into()));
        assert_eq!(path(rule(EscapedSlashes::Keep), "//a///b"), "/a/b");
    }

    proptest! {
        #[test]
        fn normal_paths_stay(target in "/[a-f%0-9./\\\\?;{-]{0,40}") {
            let rule = Normalization { merge_slashes: true, ..BASE };
            if let Normalized::Path(once) = rule.apply(&target) {
                prop_assert_eq!(path(rule, &once), once.into_owned());
            }
        }
    }
}

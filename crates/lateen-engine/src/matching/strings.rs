//! `envoy.type.matcher.v3.StringMatcher` and the regular expressions of all matchers.

use std::fmt;

use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use proto::string_matcher::MatchPattern;
use regex::{Regex, RegexBuilder};

use crate::config::error::At;

/// The compiled size of one expression is bounded; Envoy bounds RE2's program likewise.
const MAX_REGEX_SIZE: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

/// For people: `is \`x\``, `begins with \`x\``.
impl fmt::Display for StringMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exact(text) => write!(f, "is `{text}`")?,
            Pattern::Prefix(text) => write!(f, "begins with `{text}`")?,
            Pattern::Suffix(text) => write!(f, "ends with `{text}`")?,
            Pattern::Contains(text) => write!(f, "contains `{text}`")?,
            Pattern::Regex(regex) => write!(f, "matches `{}`", written(regex))?,
        }
        f.write_str(if self.ignore_case { ", in whatever case" } else { "" })
    }
}

impl StringMatcher {
    pub fn exact(text: impl Into<String>) -> Self {
        Self { pattern: Pattern::Exact(text.into()), ignore_case: false }
    }

    pub fn prefix(text: impl Into<String>) -> Self {
        Self { pattern: Pattern::Prefix(text.into()), ignore_case: false }
    }

    pub fn suffix(text: impl Into<String>) -> Self {
        Self { pattern: Pattern::Suffix(text.into()), ignore_case: false }
    }

    pub fn contains(text: impl Into<String>) -> Self {
        Self { pattern: Pattern::Contains(text.into()), ignore_case: false }
    }

    pub fn regex(matcher: &proto::RegexMatcher, at: &At) -> Option<Self> {
        Some(Self { pattern: Pattern::Regex(whole(&matcher.regex, at)?), ignore_case: false })
    }

    pub fn from_xds(matcher: &proto::StringMatcher, at: &At) -> Option<Self> {
        let fold = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        let part = |text: &str, name: &str| {
            not_empty(text, &at.field(name));
            fold(text)
        };
        let pattern = match matcher.match_pattern.as_ref() {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(fold(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(part(text, "prefix")),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(part(text, "suffix")),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(part(text, "contains")),
            // Envoy ignores ignore_case here: an expression says `(?i)` itself.
            Some(MatchPattern::SafeRegex(regex)) => return Self::regex(regex, &at.field("safe_regex")),
            Some(MatchPattern::Custom(_)) => {
                at.refuse_if("custom", true);
                return None;
            }
            None => {
                at.error("has no pattern");
                return None;
            }
        };
        Some(Self { pattern, ignore_case: matcher.ignore_case })
    }

    /// The text that alone matches, if there is one.
    pub fn exact_text(&self) -> Option<&str> {
        match &self.pattern {
            Pattern::Exact(text) => Some(text),
            _ => None,
        }
    }

    pub fn matches(&self, text: &str) -> bool {
        if self.ignore_case { self.pattern.matches(&text.to_ascii_lowercase()) } else { self.pattern.matches(text) }
    }
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Refuses an empty prefix, suffix or part, as Envoy does: it would match everything.
pub(crate) fn not_empty(text: &str, at: &At) {
    if text.is_empty() {
        at.error("must not be empty");
    }
}

/// An expression that must match the whole text, as Envoy's matchers do.
pub fn whole(text: &str, at: &At) -> Option<Regex> {
    // A parenthesis too many would end the group around the expression and with it the demand for the whole text; alone,
    // such an expression does not compile.
    if text.contains(')') {
        compile(text, text, at)?;
    }
    compile(&format!("^(?:{text})$"), text, at)
}

/// An expression as it was written before [`whole`].
pub(crate) fn written(whole: &Regex) -> &str {
    let inside = whole.as_str().strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
    inside.unwrap_or(whole.as_str())
}

/// An expression that is searched for, as Envoy's substitutions do.
pub fn search(text: &str, at: &At) -> Option<Regex> {
    compile(text, text, at)
}

fn compile(pattern: &str, shown: &str, at: &At) -> Option<Regex> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_REGEX_SIZE).build();
    built.map_err(|error| at.error(format!("`{shown}` is no regular expression: {error}"))).ok()
}

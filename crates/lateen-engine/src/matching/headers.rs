//! `envoy.config.route.v3.HeaderMatcher`.

use std::borrow::Cow;
use std::fmt;

use envoy_types::pb::envoy::config::route::v3 as proto;
use http::HeaderName;
use proto::header_matcher::HeaderMatchSpecifier;

use super::{StringMatcher, strings};
use crate::config::error::At;
use crate::message::{Headers, RequestHead, ResponseHead};

#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    field: Field,
    condition: Condition,
    invert: bool,
    missing_as_empty: bool,
}

/// A header, or one of the pseudo headers.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    Name(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
    /// Of a response.
    Status,
}

#[derive(Clone, Debug)]
enum Condition {
    Text(StringMatcher),
    /// From the first number up to, and not including, the second.
    Range(i64, i64),
    Present(bool),
}

impl Field {
    pub(crate) fn named(name: &str, at: &At) -> Option<Self> {
        Some(match name {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            name if name.eq_ignore_ascii_case("host") => Self::Authority,
            name => match HeaderName::try_from(name) {
                Ok(name) => Self::Name(name),
                Err(_) => {
                    at.error(format!("`{name}` is no header name"));
                    return None;
                }
            },
        })
    }

    /// The first value in a request.
    pub(crate) fn first<'a>(&self, head: &'a RequestHead) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Method => head.method.as_str().into(),
            Self::Path => head.target().into(),
            Self::Authority => head.host().into(),
            Self::Scheme => head.scheme.as_str().into(),
            Self::Name(name) => String::from_utf8_lossy(head.headers.get(name)?.as_bytes()),
            Self::Status => return None,
        })
    }
}

/// For people: `the header x is \`y\``.
impl fmt::Display for HeaderMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.invert {
            f.write_str("not: ")?;
        }
        match &self.field {
            Field::Name(name) => write!(f, "the header {name} ")?,
            Field::Method => f.write_str("the method ")?,
            Field::Path => f.write_str("the path with its query ")?,
            Field::Authority => f.write_str("the host ")?,
            Field::Scheme => f.write_str("the scheme ")?,
            Field::Status => f.write_str("the status ")?,
        }
        match &self.condition {
            Condition::Text(matcher) => matcher.fmt(f),
            Condition::Range(from, to) => write!(f, "is from {from} to below {to}"),
            Condition::Present(true) => f.write_str("is there"),
            Condition::Present(false) => f.write_str("is not there"),
        }
    }
}

impl HeaderMatcher {
    /// What it looks at of a request; `None` where that is not there.
    pub fn looks_at<'a>(&self, head: &'a RequestHead) -> Option<Cow<'a, str>> {
        self.field.first(head)
    }

    pub fn from_xds(matcher: &proto::HeaderMatcher, at: &At) -> Option<Self> {
        let field = Field::named(&matcher.name, &at.field("name"))?;
        if let Some(
            HeaderMatchSpecifier::PrefixMatch(text)
            | HeaderMatchSpecifier::SuffixMatch(text)
            | HeaderMatchSpecifier::ContainsMatch(text),
        ) = matcher.header_match_specifier.as_ref()
        {
            strings::not_empty(text, at);
        }
        let condition = match matcher.header_match_specifier.as_ref() {
            None => Condition::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(present)) => Condition::Present(*present),
            Some(HeaderMatchSpecifier::ExactMatch(text)) => Condition::Text(StringMatcher::exact(text)),
            Some(HeaderMatchSpecifier::PrefixMatch(text)) => Condition::Text(StringMatcher::prefix(text)),
            Some(HeaderMatchSpecifier::SuffixMatch(text)) => Condition::Text(StringMatcher::suffix(text)),
            Some(HeaderMatchSpecifier::ContainsMatch(text)) => Condition::Text(StringMatcher::contains(text)),
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
                Condition::Text(StringMatcher::regex(regex, &at.field("safe_regex_match"))?)
            }
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                Condition::Text(StringMatcher::from_xds(text, &at.field("string_match"))?)
            }
            Some(HeaderMatchSpecifier::RangeMatch(range)) => Condition::Range(range.start, range.end),
        };
        Some(Self {
            field,
            condition,
            invert: matcher.invert_match,
            missing_as_empty: matcher.treat_missing_header_as_empty,
        })
    }

    /// Whether it looks at something else than headers.
    pub fn is_of_pseudo_header(&self) -> bool {
        !matches!(self.field, Field::Name(_))
    }

    pub fn matches(&self, head: &RequestHead) -> bool {
        match &self.field {
            Field::Name(name) => self.matches_headers(name, &head.headers),
            pseudo => self.decide(pseudo.first(head)),
        }
    }

    pub fn matches_answer(&self, head: &ResponseHead) -> bool {
        match &self.field {
            Field::Status => self.decide(Some(Cow::Borrowed(head.status.as_str()))),
            _ => self.matches_response(&head.headers),
        }
    }

    /// For a response's headers, or where there are none; a pseudo header is never there.
    pub fn matches_response(&self, headers: &Headers) -> bool {
        match &self.field {
            Field::Name(name) => self.matches_headers(name, headers),
            Field::Method | Field::Path | Field::Authority | Field::Scheme | Field::Status => self.decide(None),
        }
    }

    /// Several fields of one name match if any of them does (Envoy's `match_headers_individually`).
    fn matches_headers(&self, name: &HeaderName, headers: &Headers) -> bool {
        let mut values = headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes())).peekable();
        if values.peek().is_none() {
            return self.decide(None);
        }
        values.any(|value| self.holds(&value)) != self.invert
    }

    fn decide(&self, value: Option<Cow<'_, str>>) -> bool {
        match (value, &self.condition) {
            (Some(value), _) => self.holds(&value) != self.invert,
            (None, Condition::Present(wanted)) => *wanted == self.invert,
            (None, _) if self.missing_as_empty => self.holds("") != self.invert,
            // Without a value there is nothing to compare: no match, inverted or not.
            (None, _) => false,
        }
    }

    fn holds(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Present(wanted) => *wanted,
            Condition::Text(matcher) => matcher.matches(value),
            Condition::Range(start, end) => value.parse::<i64>().is_ok_and(|number| *start <= number && number < *end),
        }
    }
}

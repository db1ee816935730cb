//! `envoy.config.route.v3.QueryParameterMatcher`.

use envoy_types::pb::envoy::config::route::v3 as proto;
use proto::query_parameter_matcher::QueryParameterMatchSpecifier;

use crate::config::error::At;
use crate::matching::StringMatcher;

#[derive(Clone, Debug)]
pub struct QueryMatcher {
    name: String,
    /// None: it must be there.
    value: Option<StringMatcher>,
}

impl QueryMatcher {
    pub(crate) fn from_xds(matcher: &proto::QueryParameterMatcher, at: &At) -> Option<Self> {
        let value = match matcher.query_parameter_match_specifier.as_ref() {
            Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
                Some(StringMatcher::from_xds(text, &at.field("string_match"))?)
            }
            Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
                at.field("present_match").error("must be true");
                None
            }
            Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
        };
        Some(Self { name: matcher.name.clone(), value })
    }

    /// As in Envoy: the first of several parameters of one name counts, and nothing is decoded.
    fn matches(&self, query: &str) -> bool {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        match (pairs.find(|(name, _)| *name == self.name), &self.value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((_, value)), Some(wanted)) => wanted.matches(value),
        }
    }
}

/// The first that does not match.
pub(crate) fn first_missed<'a>(matchers: &'a [QueryMatcher], query: &str) -> Option<&'a QueryMatcher> {
    matchers.iter().find(|matcher| !matcher.matches(query))
}

/// For people: `the query parameter x is \`y\``.
impl std::fmt::Display for QueryMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "the query parameter {} {value}", self.name),
            None => write!(f, "the query parameter {} is there", self.name),
        }
    }
}

//! Conditions on what a token says, which the JWT filter has left in the request's metadata.

use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use matcher::value_matcher::MatchPattern;
use matcher::{list_matcher, metadata_matcher};

use crate::filters::jwt_authn::{NAME, PAYLOAD};

/// A claim that is a text of this kind, or a list with one. `path`: through nested claims.
pub(crate) fn claim(path: &[String], text: matcher::StringMatcher) -> matcher::MetadataMatcher {
    let text = value(MatchPattern::StringMatch(text));
    let in_list = value(MatchPattern::ListMatch(Box::new(matcher::ListMatcher {
        match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(text.clone()))),
    })));
    let either = value(MatchPattern::OrMatch(matcher::OrMatcher { value_matchers: vec![in_list, text] }));
    of_token(path.iter().map(String::as_str), either)
}

/// A claim that is a text of this kind.
pub(crate) fn text_claim(name: &str, text: matcher::StringMatcher) -> matcher::MetadataMatcher {
    of_token([name], value(MatchPattern::StringMatch(text)))
}

fn of_token<'a>(path: impl IntoIterator<Item = &'a str>, value: matcher::ValueMatcher) -> matcher::MetadataMatcher {
    metadata(NAME, std::iter::once(PAYLOAD).chain(path), value)
}

/// What a filter has said: a text of this kind, or a list with one.
pub(crate) fn said(filter: &str, key: &str, text: matcher::StringMatcher, in_list: bool) -> matcher::MetadataMatcher {
    let text = value(MatchPattern::StringMatch(text));
    let wanted = if in_list {
        value(MatchPattern::ListMatch(Box::new(matcher::ListMatcher {
            match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(text))),
        })))
    } else {
        text
    };
    metadata(filter, [key], wanted)
}

fn metadata<'a>(
    filter: &str,
    path: impl IntoIterator<Item = &'a str>,
    value: matcher::ValueMatcher,
) -> matcher::MetadataMatcher {
    let step = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: path.into_iter().map(step).collect(),
        value: Some(value),
        invert: false,
    }
}

fn value(pattern: MatchPattern) -> matcher::ValueMatcher {
    matcher::ValueMatcher { match_pattern: Some(pattern) }
}

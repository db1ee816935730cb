//! `envoy.type.matcher.v3.MetadataMatcher`: conditions on what filters said of a request.

use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use proto::value_matcher::MatchPattern;
use proto::{double_matcher, list_matcher, metadata_matcher};

use super::StringMatcher;
use crate::config::error::At;
use crate::config::metadata::Value;
use crate::metadata::DynamicMetadata;

#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    /// The name under which the filter writes.
    filter: String,
    path: Vec<String>,
    value: ValueMatcher,
    invert: bool,
}

#[derive(Clone, Debug)]
enum ValueMatcher {
    Null,
    /// From the first to before the last.
    Range(f64, f64),
    Exactly(f64),
    Text(StringMatcher),
    Bool(bool),
    /// There is a value, of whatever kind. `false` matches nothing, as in Envoy.
    Present(bool),
    /// A list with one item at least that matches.
    OneOf(Box<Self>),
    Or(Vec<Self>),
}

impl MetadataMatcher {
    pub(crate) fn from_xds(matcher: &proto::MetadataMatcher, at: &At) -> Option<Self> {
        if matcher.filter.is_empty() {
            at.field("filter").error("is required");
        }
        if matcher.path.is_empty() {
            at.field("path").error("needs one step at least");
        }
        let step = |(index, step): (usize, &metadata_matcher::PathSegment)| match step.segment.as_ref() {
            Some(metadata_matcher::path_segment::Segment::Key(key)) if !key.is_empty() => Some(key.clone()),
            _ => {
                at.index("path", index).field("key").error("is required");
                None
            }
        };
        Some(Self {
            filter: matcher.filter.clone(),
            path: matcher.path.iter().enumerate().map(step).collect::<Option<_>>()?,
            value: ValueMatcher::from_xds(matcher.value.as_ref(), &at.field("value"))?,
            invert: matcher.invert,
        })
    }

    /// Whether there is anything to match.
    pub fn finds(&self, metadata: &DynamicMetadata) -> bool {
        metadata.at(&self.filter, &self.path).is_some()
    }

    pub fn matches(&self, metadata: &DynamicMetadata) -> bool {
        self.value.matches(metadata.at(&self.filter, &self.path)) != self.invert
    }
}

impl ValueMatcher {
    fn from_xds(matcher: Option<&proto::ValueMatcher>, at: &At) -> Option<Self> {
        let Some(pattern) = matcher.and_then(|matcher| matcher.match_pattern.as_ref()) else {
            at.error("has no pattern");
            return None;
        };
        Some(match pattern {
            MatchPattern::NullMatch(_) => Self::Null,
            MatchPattern::DoubleMatch(number) => match number.match_pattern.as_ref() {
                Some(double_matcher::MatchPattern::Range(range)) => Self::Range(range.start, range.end),
                Some(double_matcher::MatchPattern::Exact(number)) => Self::Exactly(*number),
                None => {
                    at.field("double_match").error("has no pattern");
                    return None;
                }
            },
            MatchPattern::StringMatch(text) => Self::Text(StringMatcher::from_xds(text, &at.field("string_match"))?),
            MatchPattern::BoolMatch(wanted) => Self::Bool(*wanted),
            MatchPattern::PresentMatch(wanted) => Self::Present(*wanted),
            MatchPattern::ListMatch(list) => {
                let Some(list_matcher::MatchPattern::OneOf(item)) = list.match_pattern.as_ref() else {
                    at.field("list_match").error("has no pattern");
                    return None;
                };
                Self::OneOf(Box::new(Self::from_xds(Some(item), &at.field("list_match.one_of"))?))
            }
            MatchPattern::OrMatch(or) => {
                if or.value_matchers.len() < 2 {
                    at.field("or_match.value_matchers").error("needs two at least");
                }
                let read =
                    |(index, matcher)| Self::from_xds(Some(matcher), &at.index("or_match.value_matchers", index));
                Self::Or(or.value_matchers.iter().enumerate().map(read).collect::<Option<_>>()?)
            }
        })
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Or(matchers), _) => matchers.iter().any(|matcher| matcher.matches(value)),
            (_, None) => false,
            (Self::Present(wanted), Some(_)) => *wanted,
            (Self::Null, Some(value)) => *value == Value::Null,
            (Self::Range(start, end), Some(Value::Number(number))) => start <= number && number < end,
            (Self::Exactly(wanted), Some(value)) => *value == Value::Number(*wanted),
            (Self::Text(matcher), Some(Value::String(text))) => matcher.matches(text),
            (Self::Bool(wanted), Some(value)) => *value == Value::Bool(*wanted),
            (Self::OneOf(item), Some(Value::List(list))) => list.iter().any(|value| item.matches(Some(value))),
            (Self::Range(..) | Self::Text(_) | Self::OneOf(_), Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use lateen_xds::json::from_yaml;

    use super::*;

    fn matcher(value: &str) -> MetadataMatcher {
        let yaml = format!("filter: jwt\npath: [{{key: payload}}, {{key: claim}}]\n{value}");
        let message = from_yaml::<proto::MetadataMatcher>(&yaml).expect("it is a matcher");
        let at = At::resource("test");
        let compiled = MetadataMatcher::from_xds(&message, &at);
        at.finish(compiled).expect("it compiles")
    }

    fn metadata(claim: &str) -> DynamicMetadata {
        let mut metadata = DynamicMetadata::default();
        let fields = format!("{{\"payload\":{{\"claim\":{claim}}}}}");
        metadata.merge("jwt", crate::json::object(fields.as_bytes()).expect("it is JSON"));
        metadata
    }

    #[test]
    fn values_match_by_kind_and_content() {
        let list_or_text = "value: {or_match: {value_matchers: [{list_match: {one_of: {string_match: {exact: a}}}}, \
                            {string_match: {exact: a}}]}}";
        for (value, claim, expected) in [
            ("value: {string_match: {exact: a}}", "\"a\"", true),
            ("value: {string_match: {exact: a}}", "[\"a\"]", false),
            ("value: {string_match: {exact: a}}\ninvert: true", "\"a\"", false),
            ("value: {string_match: {exact: a}}\ninvert: true", "1", true),
            (list_or_text, "\"a\"", true),
            (list_or_text, "[\"b\", \"a\"]", true),
            (list_or_text, "[\"b\", [\"a\"]]", false),
            ("value: {bool_match: true}", "true", true),
            ("value: {bool_match: false}", "true", false),
            ("value: {null_match: {}}", "null", true),
            ("value: {null_match: {}}", "0", false),
            ("value: {present_match: true}", "{}", true),
            ("value: {present_match: false}", "{}", false),
            ("value: {double_match: {exact: 2}}", "2.0", true),
            ("value: {double_match: {range: {start: 1, end: 2}}}", "1", true),
            ("value: {double_match: {range: {start: 1, end: 2}}}", "2", false),
        ] {
            assert_eq!(matcher(value).matches(&metadata(claim)), expected, "{value} on {claim}");
        }
    }

    #[test]
    fn what_is_not_there_matches_only_inverted() {
        for (value, expected) in [
            ("value: {string_match: {exact: ''}}", false),
            ("value: {null_match: {}}", false),
            ("value: {present_match: true}", false),
            ("value: {string_match: {exact: a}}\ninvert: true", true),
        ] {
            assert_eq!(matcher(value).matches(DynamicMetadata::none()), expected, "{value}");
        }
    }
}

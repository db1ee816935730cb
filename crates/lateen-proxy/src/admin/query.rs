//! The query part of an admin request.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Parameters in the order in which they stand there.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn new(text: Option<&'a str>) -> Self {
        let decoded = |text: &'a str| percent_decode_str(text).decode_utf8_lossy();
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decoded(k), decoded(v)))
                .collect(),
        )
    }

    /// Names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The first value of a parameter that is not empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| &**value)
    }

    /// Whether a parameter is there, with whatever value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_have_no_value() {
        let query = Query::new(Some("include_eds&name_regex=a%7Cb.*&mask="));
        assert!(query.has("include_eds") && query.has("mask") && !query.has("resource"));
        assert_eq!((query.value("name_regex"), query.value("mask")), (Some("a|b.*"), None));
    }
}

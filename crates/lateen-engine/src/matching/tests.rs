//! Tables of every matcher.

use std::net::IpAddr;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use http::{HeaderName, HeaderValue, Method};
use proto::string_matcher::MatchPattern;
use route::header_matcher::HeaderMatchSpecifier as Specifier;

use super::{HeaderMatcher, StringMatcher, addresses, strings};
use crate::config::error::At;
use crate::message::{Headers, RequestHead, Scheme, Version};

fn text(pattern: MatchPattern, ignore_case: bool) -> Result<StringMatcher, String> {
    let at = At::resource("r");
    let compiled = StringMatcher::from_xds(&proto::StringMatcher { ignore_case, match_pattern: Some(pattern) }, &at);
    at.finish(compiled).map_err(|errors| errors[0].to_string())
}

fn regex(text: &str) -> proto::RegexMatcher {
    proto::RegexMatcher { regex: text.into(), ..Default::default() }
}

#[test]
fn text_is_matched_whole_at_its_start_its_end_or_anywhere() {
    let exact = |text: &str| MatchPattern::Exact(text.into());
    let prefix = |text: &str| MatchPattern::Prefix(text.into());
    let suffix = |text: &str| MatchPattern::Suffix(text.into());
    let contains = |text: &str| MatchPattern::Contains(text.into());
    let expression = |text: &str| MatchPattern::SafeRegex(regex(text));
    let cases = [
        (exact("/a"), false, "/a", true),
        (exact("/a"), false, "/A", false),
        (exact("/a"), true, "/A", true),
        (exact(""), false, "", true),
        (exact(""), false, "a", false),
        (prefix("/a"), false, "/ab", true),
        (prefix("/A"), true, "/ab", true),
        (prefix("/a"), false, "b/a", false),
        (suffix(".html"), false, "x.html", true),
        (suffix(".HTML"), true, "x.html", true),
        (suffix(".html"), false, ".html.gz", false),
        (contains("b"), false, "abc", true),
        (contains("B"), true, "abc", true),
        (contains("d"), false, "abc", false),
        (expression("a+"), false, "aaa", true),
        (expression("a+"), false, "aab", false),
        (expression("a|ab"), false, "ab", true),
        (expression("a|b"), false, "xb", false),
        // `ignore_case` is for the other patterns; an expression says so itself.
        (expression("a+"), true, "A", false),
        (expression("(?i)a+"), false, "A", true),
        (expression(".*"), false, "", true),
    ];
    for (pattern, ignore_case, value, expected) in cases {
        let shown = format!("{pattern:?} {ignore_case} {value}");
        assert_eq!(text(pattern, ignore_case).expect(&shown).matches(value), expected, "{shown}");
    }
}

#[test]
fn patterns_that_match_everything_or_nothing_are_refused() {
    let cases = [
        (MatchPattern::Prefix(String::new()), "r: prefix: must not be empty"),
        (MatchPattern::Suffix(String::new()), "r: suffix: must not be empty"),
        (MatchPattern::Contains(String::new()), "r: contains: must not be empty"),
        (MatchPattern::SafeRegex(regex("(")), "r: safe_regex: `(` is no regular expression"),
        // As a whole it would read `^(?:a)|(b)$`.
        (MatchPattern::SafeRegex(regex("a)|(b")), "r: safe_regex: `a)|(b` is no regular expression"),
        (MatchPattern::SafeRegex(regex("(a{1000}){1000}")), "r: safe_regex:"),
    ];
    for (pattern, expected) in cases {
        let error = text(pattern, false).expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
    let at = At::resource("r");
    assert!(StringMatcher::from_xds(&proto::StringMatcher::default(), &at).is_none() && at.has_errors());
}

#[test]
fn a_search_needs_not_be_the_whole_text() {
    let at = At::resource("r");
    assert!(strings::search("b", &at).expect("it is an expression").is_match("abc"));
    assert!(!strings::whole("b", &at).expect("it is an expression").is_match("abc"));
}

fn head(fields: &[(&str, &str)]) -> RequestHead {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.append(
            HeaderName::try_from(*name).expect("a name"),
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    RequestHead {
        method: Method::PUT,
        scheme: Scheme::Https,
        authority: Bytes::from_static(b"a.example:8443"),
        path: Bytes::from_static(b"/p?q=1"),
        headers,
        version: Version::Http11,
    }
}

fn header(name: &str, specifier: Option<Specifier>, invert: bool, missing_as_empty: bool) -> HeaderMatcher {
    let at = At::resource("r");
    let matcher = route::HeaderMatcher {
        name: name.into(),
        invert_match: invert,
        treat_missing_header_as_empty: missing_as_empty,
        header_match_specifier: specifier,
    };
    let compiled = HeaderMatcher::from_xds(&matcher, &at);
    at.finish(compiled).expect("it compiles")
}

fn exact(value: &str) -> Option<Specifier> {
    Some(Specifier::StringMatch(proto::StringMatcher {
        match_pattern: Some(MatchPattern::Exact(value.into())),
        ignore_case: false,
    }))
}

fn range(start: i64, end: i64) -> Option<Specifier> {
    Some(Specifier::RangeMatch(envoy_types::pb::envoy::r#type::v3::Int64Range { start, end }))
}

#[test]
fn a_header_matches_by_its_value() {
    let head = head(&[("x-a", "abc"), ("x-n", "-5"), ("x-big", "99999999999999999999"), ("x-empty", "")]);
    let cases = [
        ("x-a", exact("abc"), true),
        ("X-A", exact("abc"), true),
        ("x-a", exact("ab"), false),
        ("x-a", Some(Specifier::ExactMatch("abc".into())), true),
        ("x-a", Some(Specifier::PrefixMatch("ab".into())), true),
        ("x-a", Some(Specifier::SuffixMatch("bc".into())), true),
        ("x-a", Some(Specifier::ContainsMatch("b".into())), true),
        ("x-a", Some(Specifier::SafeRegexMatch(regex("a.c"))), true),
        ("x-a", Some(Specifier::SafeRegexMatch(regex("a"))), false),
        ("x-a", None, true),
        ("x-a", Some(Specifier::PresentMatch(true)), true),
        ("x-a", Some(Specifier::PresentMatch(false)), false),
        ("x-empty", Some(Specifier::PresentMatch(true)), true),
        ("x-none", Some(Specifier::PresentMatch(true)), false),
        ("x-none", Some(Specifier::PresentMatch(false)), true),
        ("x-n", range(-10, 0), true),
        ("x-n", range(-5, 0), true),
        ("x-n", range(-10, -5), false),
        ("x-a", range(-10, 10), false),
        ("x-big", range(0, i64::MAX), false),
        (":method", exact("PUT"), true),
        (":path", exact("/p?q=1"), true),
        (":authority", exact("a.example:8443"), true),
        ("host", exact("a.example:8443"), true),
        (":scheme", exact("https"), true),
    ];
    for (name, specifier, expected) in cases {
        let shown = format!("{name} {specifier:?}");
        assert_eq!(header(name, specifier.clone(), false, false).matches(&head), expected, "{shown}");
        // With a value the inverted matcher says the opposite; without one only a condition on presence does.
        let presence = matches!(specifier, None | Some(Specifier::PresentMatch(_)));
        if presence || name != "x-none" {
            assert_eq!(header(name, specifier, true, false).matches(&head), !expected, "inverted: {shown}");
        }
    }
}

#[test]
fn an_absent_header_matches_nothing_unless_taken_as_empty() {
    let head = head(&[]);
    for invert in [false, true] {
        assert!(!header("x-a", exact("b"), invert, false).matches(&head));
        assert!(!header("x-a", exact(""), invert, false).matches(&head));
    }
    assert!(header("x-a", exact(""), false, true).matches(&head));
    assert!(header("x-a", exact("b"), true, true).matches(&head));
    assert!(!header("x-a", exact("b"), false, true).matches(&head));
}

/// Otherwise a second field would hide the first one from a rule that denies it.
#[test]
fn of_several_fields_of_one_name_each_counts_alone() {
    for order in [["b", "c"], ["c", "b"]] {
        let head = head(&[("x-a", order[0]), ("x-a", order[1])]);
        assert!(header("x-a", exact("b"), false, false).matches(&head), "{order:?}");
        assert!(!header("x-a", exact("b"), true, false).matches(&head), "{order:?}");
        assert!(!header("x-a", exact("b,c"), false, false).matches(&head), "{order:?}");
    }
}

#[test]
fn responses_have_no_pseudo_headers() {
    let headers = head(&[("x-a", "b")]).headers;
    assert!(header("x-a", exact("b"), false, false).matches_response(&headers));
    assert!(!header(":method", exact("PUT"), false, false).matches_response(&headers));
}

#[test]
fn expressions_that_would_unfold_are_refused() {
    for expression in ["(?:a{1000}){1000}", "((a{100}){100}){100}", &"(a|b)".repeat(100_000)] {
        let refused = text(MatchPattern::SafeRegex(regex(expression)), false).expect_err("it is too large");
        assert!(refused.contains("is no regular expression"), "{}", &refused[..refused.len().min(200)]);
    }
}

#[test]
fn header_names_are_checked() {
    let at = At::resource("r");
    assert!(HeaderMatcher::from_xds(&route::HeaderMatcher { name: "a b".into(), ..Default::default() }, &at).is_none());
    assert!(at.has_errors());
}

#[test]
fn addresses_are_matched_by_prefix() {
    let range = |address: &str, length: u32| CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(envoy_types::pb::google::protobuf::UInt32Value { value: length }),
    };
    let cases = [
        ("10.1.2.3", 16, "10.1.255.255", true),
        ("10.1.2.3", 16, "10.2.0.0", false),
        ("10.1.2.3", 32, "10.1.2.3", true),
        ("0.0.0.0", 0, "203.0.113.9", true),
        ("0.0.0.0", 0, "::1", false),
        ("10.1.2.3", 32, "::ffff:10.1.2.3", true),
        ("2001:db8::", 32, "2001:db8:1::1", true),
        ("2001:db8::", 32, "2001:db9::1", false),
    ];
    for (prefix, length, address, expected) in cases {
        let at = At::resource("r");
        let network = addresses::network(&range(prefix, length), &at).expect("a network");
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(addresses::holds(&network, address), expected, "{prefix}/{length} {address}");
    }
    for (prefix, length) in [("10.0.0.0", 33), ("example", 8), ("::", 129)] {
        let at = At::resource("r");
        assert!(addresses::network(&range(prefix, length), &at).is_none() && at.has_errors(), "{prefix}/{length}");
    }
}

//! What of a watched request may be told: by default nothing that could be somebody's secret. Names are told, values of headers
//! only where they are known to be harmless or were asked for by name, values in a query never.

use std::collections::HashSet;

use http::HeaderName;

/// In place of a value.
pub(super) const REDACTED: &str = "[redacted]";

/// Headers that say how a message is made, and by whom, but nothing of what it is about.
const HARMLESS: [&str; 38] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "age",
    "allow",
    "b3",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "expires",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "host",
    "last-modified",
    "retry-after",
    "server",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-envoy-attempt-count",
    "x-envoy-upstream-service-time",
    "x-forwarded-proto",
    "x-request-id",
];

/// Headers whose values are never told, whoever asks.
const SECRET: [&str; 9] = [
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
];

/// Whether a header's value may be told.
pub(super) fn header(name: &HeaderName, revealed: &HashSet<HeaderName>) -> bool {
    let name_text = name.as_str();
    HARMLESS.binary_search(&name_text).is_ok() || (revealed.contains(name) && SECRET.binary_search(&name_text).is_err())
}

/// A path whose query says what it has, and not what of it.
pub(super) fn path(text: &str) -> String {
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    let one = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={REDACTED}"),
        // A lone word may be a secret as well as a flag.
        None if pair.is_empty() => String::new(),
        None => REDACTED.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(one).collect();
    format!("{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_values_are_told_unless_they_are_asked_for() {
        assert!(HARMLESS.is_sorted() && SECRET.is_sorted());
        let name = |text: &str| text.parse::<HeaderName>().expect("it is a name");
        let revealed = HashSet::from([name("x-user"), name("authorization"), name("cookie")]);
        for (header_name, plain, asked) in [
            ("content-type", true, true),
            ("x-request-id", true, true),
            ("x-user", false, true),
            ("x-anything", false, false),
            ("authorization", false, false),
            ("cookie", false, false),
            ("x-forwarded-client-cert", false, false),
        ] {
            assert_eq!(header(&name(header_name), &HashSet::new()), plain, "{header_name}");
            assert_eq!(header(&name(header_name), &revealed), asked, "{header_name}");
        }
    }

    #[test]
    fn a_query_has_names_alone() {
        assert_eq!(path("/a/b"), "/a/b");
        assert_eq!(path("/a?token=secret&x=&flag"), "/a?token=[redacted]&x=[redacted]&[redacted]");
        assert_eq!(path("/a?"), "/a?");
    }
}

//! Host names as Istio's kinds write them: short names, wildcards, and which of several patterns is the most specific.

use std::cmp::Ordering;
use std::net::IpAddr;

/// Makes a full name of a short one: `reviews` in namespace `default` is `reviews.default.svc.<domain>`.
///
/// A name with a dot, a wildcard and an address stay as they are. The result is lower case.
pub fn resolve(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.contains('.') || host.contains('*') || host.parse::<IpAddr>().is_ok() {
        return host;
    }
    service_fqdn(&host, namespace, domain)
}

/// `<name>.<namespace>.svc.<domain>`.
pub fn service_fqdn(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

/// Whether the name is a pattern: `*` or `*.example.com`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether the text is an IP address.
pub fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether two names have a host in common, either of them possibly a wildcard.
///
/// `*.foo.com` meets `a.foo.com` and `*.com`; it does not meet `foo.com`.
pub fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
    }
}

/// Whether every host that `narrow` stands for is one that `wide` stands for.
pub fn is_subset_of(narrow: &str, wide: &str) -> bool {
    match (narrow.strip_prefix('*'), wide.strip_prefix('*')) {
        (None, None) => narrow == wide,
        (_, None) => false,
        (None, Some(suffix)) => narrow.ends_with(suffix),
        (Some(narrow), Some(wide)) => narrow.ends_with(wide),
    }
}

/// The narrower of two names that meet: what is left when a server's host and a route's host are put together.
pub fn intersection<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if is_subset_of(a, b) {
        Some(a)
    } else if is_subset_of(b, a) {
        Some(b)
    } else {
        None
    }
}

/// Orders patterns from most to least specific: exact names first, then longer wildcards, then by text.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a).cmp(&is_wildcard(b)).then_with(|| b.len().cmp(&a.len())).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_the_namespace() {
        for (host, want) in [
            ("reviews", "reviews.default.svc.cluster.local"),
            ("Reviews", "reviews.default.svc.cluster.local"),
            ("reviews.other", "reviews.other"),
            ("reviews.default.svc.cluster.local", "reviews.default.svc.cluster.local"),
            ("www.example.com.", "www.example.com"),
            ("*", "*"),
            ("*.example.com", "*.example.com"),
            ("::1", "::1"),
        ] {
            assert_eq!(resolve(host, "default", "cluster.local"), want, "{host}");
        }
    }

    #[test]
    fn wildcards_meet_what_they_cover() {
        for (a, b, meets) in [
            ("a.com", "a.com", true),
            ("a.com", "b.com", false),
            ("*", "a.com", true),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.com", "*.a.com", true),
            ("*.a.com", "*.b.com", false),
        ] {
            assert_eq!(matches(a, b), meets, "{a} {b}");
            assert_eq!(matches(b, a), meets, "{b} {a}");
        }
    }

    #[test]
    fn the_narrower_name_is_the_intersection() {
        for (a, b, want) in [
            ("*", "a.com", Some("a.com")),
            ("a.com", "*", Some("a.com")),
            ("*.com", "*.a.com", Some("*.a.com")),
            ("*", "*", Some("*")),
            ("a.com", "b.com", None),
            ("*.a.com", "a.com", None),
        ] {
            assert_eq!(intersection(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn exact_names_are_more_specific_than_long_wildcards() {
        let mut hosts = vec!["*", "*.com", "z.a.com", "*.b.com", "*.a.com", "a.com"];
        hosts.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(hosts, ["z.a.com", "a.com", "*.a.com", "*.b.com", "*.com", "*"]);
    }
}

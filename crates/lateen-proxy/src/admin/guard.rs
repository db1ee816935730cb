//! Whom the admin port answers. It has no passwords: who reaches it is trusted. A browser is not, for it asks on behalf of
//! whatever page it shows: a page of another origin, or one whose name was made to lead here (DNS rebinding).

use std::net::IpAddr;

use http::{HeaderMap, StatusCode, header};

/// Why a request is not answered.
pub(super) fn refusal(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if !is_private(host) {
        return Some((StatusCode::FORBIDDEN, "the admin port is asked by an address, or as localhost\n"));
    }
    let is_foreign = |origin: &str| origin.strip_prefix("http://") != Some(host);
    let fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if fetched || text(header::ORIGIN).is_some_and(is_foreign) {
        return Some((StatusCode::FORBIDDEN, "pages of other origins are not answered\n"));
    }
    None
}

/// An address, `localhost`, or a name without a dot: none that others could make lead here.
fn is_private(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_answered(fields: &[(&'static str, &'static str)]) -> bool {
        let fields = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        refusal(&fields.collect()).is_none()
    }

    #[test]
    fn addresses_and_own_names_are_answered_and_pages_of_others_are_not() {
        for host in
            ["127.0.0.1:15000", "[::1]:15000", "localhost", "LOCALHOST:1", "proxy", "10.0.0.1", "a.localhost:2", ""]
        {
            assert!(is_answered(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.test", "evil.test:15000", "127.0.0.1.evil.test", "[evil.test]", "[::1", "localhost.evil.test"]
        {
            assert!(!is_answered(&[("host", host)]), "{host}");
        }
        assert!(is_answered(&[]));
        assert!(is_answered(&[
            ("host", "localhost:1"),
            ("origin", "http://localhost:1"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(is_answered(&[("host", "localhost:1"), ("sec-fetch-site", "none")]));
        for origin in ["http://evil.test", "https://localhost:1", "http://localhost:2", "null"] {
            assert!(!is_answered(&[("host", "localhost:1"), ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!is_answered(&[("host", "localhost:1"), ("sec-fetch-site", site)]), "{site}");
        }
    }
}

//! What fuzzers run, and every test run with the inputs that are kept in `fuzz/corpus`: texts and messages that users, control
//! planes and workloads send, by the doors that everybody uses. The parsers inside the proxy and the DNS server have theirs
//! beside them.

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::google::protobuf::Any;
use lateen_engine::config::{Resources, Snapshot};
use lateen_engine::jwt::{KeySet, Token};
use lateen_engine::matching::paths::{EscapedSlashes, Normalization, Normalized};
use lateen_identity::ca::SigningRequest;

/// By the name of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("bootstrap", bootstrap),
    ("certificate_request", certificate_request),
    ("json_web_token", json_web_token),
    ("kinds", kinds),
    ("paths", paths),
    ("resources", resources),
];

/// The kinds that users write, in YAML: parsed, and checked.
pub fn kinds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = lateen_api::parse_documents("fuzz.yaml", text, "default");
    for object in &parsed.objects {
        lateen_api::validate(object);
    }
    for diagnostic in &parsed.diagnostics {
        assert!(!diagnostic.message.is_empty());
    }
}

/// A bootstrap in YAML: read, compiled, linked; and written as JSON it is the same message.
pub fn bootstrap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(bootstrap) = lateen_xds::json::from_yaml::<Bootstrap>(text) else { return };
    let mut resources = Resources::default();
    if resources.load_static(&bootstrap).is_ok() {
        resources.link(&Snapshot::default());
    }
    if let Ok(json) = lateen_xds::json::message_to_json(&bootstrap) {
        let again: Bootstrap = lateen_xds::json::from_json(&json).expect("what was written can be read");
        // Entries of maps have no order.
        assert!(lateen_xds::json::message_to_json(&again).as_ref() == Ok(&json), "it became another message");
    }
}

/// Types of discovered resources, as the first byte chooses.
const KINDS: [&str; 5] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// A resource as a discovery server sends it: taken or refused, and then linked.
pub fn resources(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let type_url = KINDS[usize::from(*kind) % KINDS.len()];
    let any = Any { type_url: type_url.to_owned(), value: body.to_vec() };
    let mut resources = Resources::default();
    let taken = resources.upsert(type_url, "a", &any, |_| Ok(()));
    if let Err(errors) = &taken {
        assert!(!errors.is_empty() && errors.iter().all(|error| !error.reason.is_empty()));
    }
    resources.link(&Snapshot::default());
    // What a dump shows of it.
    let _ = lateen_xds::json::any_to_json(type_url, body);
}

/// A path that was normalised stays as it is, and has nothing left that would be normalised behind.
pub fn paths(data: &[u8]) {
    let Some((chosen, target)) = data.split_first() else { return };
    // Codecs let visible ASCII through, and nothing else.
    let Some(target) =
        std::str::from_utf8(target).ok().filter(|target| target.bytes().all(|byte| byte.is_ascii_graphic()))
    else {
        return;
    };
    let escaped_slashes = [
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward,
    ][usize::from(*chosen >> 2) % 4];
    let rules = Normalization { dot_segments: chosen & 1 != 0, merge_slashes: chosen & 2 != 0, escaped_slashes };
    let normal = match rules.apply(target) {
        Normalized::Path(path) => path.into_owned(),
        Normalized::Redirect(path) => path,
        Normalized::Rejected => return,
    };
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()) && !normal.contains('#'), "{normal:?}");
    let path = normal.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        return;
    }
    if rules.dot_segments {
        assert_eq!(rules.apply(&normal), Normalized::Path(normal.as_str().into()), "of {target:?}");
        let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        assert!(!path.split('/').any(dots), "{path:?} of {target:?}");
        assert!(!path.contains('\\'), "{path:?} of {target:?}");
    }
    assert!(!rules.merge_slashes || !path.contains("//"), "{path:?} of {target:?}");
}

/// A certificate signing request: as PEM and as DER it is the same.
pub fn certificate_request(data: &[u8]) {
    let _ = SigningRequest::from_der(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = SigningRequest::from_pem(text);
    }
}

/// A token in the first line, and keys behind it: a token that was checked against them has an algorithm of theirs, and is not
/// good for ever unless it says so.
pub fn json_web_token(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (token, keys) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let keys = KeySet::parse(keys);
    let Ok(token) = std::str::from_utf8(token).map(Token::parse) else { return };
    let Ok(token) = token else { return };
    let _ = token.check_time(0, 0).is_ok() | token.check_time(u64::MAX, u64::MAX).is_ok();
    if let Ok(keys) = keys {
        let verified = keys.verify(&token);
        assert!(verified.is_err() || data.len() > 80, "no signature is so short");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_are_kept_still_pass() {
        for (target, run) in super::TARGETS {
            lateen_testing::corpus::replay(target, *run);
        }
    }
}

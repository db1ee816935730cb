//! A WebSocket's key and the answer to it, which HTTP/1.1 has (RFC 6455 section 4) and HTTP/2 leaves out (RFC 8441 section 5):
//! made here where one side speaks the one and the other side the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use lateen_engine::message::Headers;

const WEBSOCKET: &str = "websocket";

/// A key for an upstream over HTTP/1.1, if the client gave none.
pub(super) fn key(request: &Headers, upgrade: Option<&str>) -> Option<String> {
    let lacks = upgrade == Some(WEBSOCKET) && !request.contains(&SEC_WEBSOCKET_KEY);
    lacks.then(|| STANDARD.encode(rand::random::<[u8; 16]>()))
}

/// Takes the answer to a key away that was not the client's.
pub(super) fn forget(answer: &mut Headers) {
    answer.remove(&SEC_WEBSOCKET_ACCEPT);
}

/// Answers the client's key, where the upstream did not.
pub(super) fn answer(answer: &mut Headers, request: &Headers, upgrade: &str) {
    if upgrade == WEBSOCKET
        && let Some(key) = request.get(&SEC_WEBSOCKET_KEY)
        && !answer.contains(&SEC_WEBSOCKET_ACCEPT)
    {
        answer.append(SEC_WEBSOCKET_ACCEPT, accept(key));
    }
}

/// RFC 6455 section 4.2.2.
fn accept(key: &HeaderValue) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let digest = aws_lc_rs::digest::digest(algorithm, &[key.as_bytes(), GUID].concat());
    HeaderValue::try_from(STANDARD.encode(digest)).expect("Base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_does_it() {
        let mut request = Headers::default();
        assert!(key(&request, Some(WEBSOCKET)).is_some() && key(&request, Some("connect")).is_none());
        request.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(key(&request, Some(WEBSOCKET)), None);
        let mut answered = Headers::default();
        answer(&mut answered, &request, WEBSOCKET);
        answer(&mut answered, &request, WEBSOCKET);
        let accepted: Vec<_> = answered.get_all(&SEC_WEBSOCKET_ACCEPT).collect();
        assert_eq!(accepted, ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
        forget(&mut answered);
        assert!(answered.is_empty());
    }
}

//! Whether a text can be a certificate or a key at all. Who uses it finds out whether it is one; this is for telling whoever has
//! written it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Whether there is a certificate in it.
pub fn has_certificate(pem: &[u8]) -> bool {
    blocks(pem).any(|(label, der)| label == "CERTIFICATE" && is_der(&der))
}

/// What is wrong with a certificate chain and its key, as far as can be told without understanding them.
///
/// # Errors
/// One of them is not in PEM, or not of its kind.
pub fn check_pair(chain: &[u8], key: &[u8]) -> Result<(), String> {
    for (text, what, kind) in [(chain, "certificate", "CERTIFICATE"), (key, "key", "PRIVATE KEY")] {
        let found: Vec<_> = blocks(text).collect();
        if found.is_empty() {
            return Err(format!("tls: failed to find any PEM data in {what} input"));
        }
        let of_kind = |(label, der): &(String, Vec<u8>)| label.ends_with(kind) && is_der(der);
        if !found.iter().any(of_kind) {
            return Err(format!("tls: failed to find {kind} in {what} input"));
        }
    }
    Ok(())
}

/// The PEM blocks (RFC 7468): what they are called and what is in them.
fn blocks(pem: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let text = String::from_utf8_lossy(pem).into_owned();
    let parts: Vec<String> = text.split("-----BEGIN ").skip(1).map(str::to_owned).collect();
    parts.into_iter().filter_map(|part| {
        let (label, rest) = part.split_once("-----")?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let body: String = body.split_ascii_whitespace().collect();
        Some((label.to_owned(), BASE64.decode(body).ok()?))
    })
}

/// A SEQUENCE, as certificates and keys are (X.690).
fn is_der(bytes: &[u8]) -> bool {
    bytes.len() > 2 && bytes[0] == 0x30
}

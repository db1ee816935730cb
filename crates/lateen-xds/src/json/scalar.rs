//! What the words of a text mean where a boolean, a number or bytes are wanted. Words without quotes follow YAML as Envoy
//! reads it (yaml-cpp's conversions); quoted ones follow protobuf's JSON form, where numbers may be texts.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// `true` and `false`, and YAML 1.1's other words for them.
pub(super) fn boolean(plain: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(plain));
    if is(&["true", "yes", "on", "y"]) {
        Some(true)
    } else if is(&["false", "no", "off", "n"]) {
        Some(false)
    } else {
        None
    }
}

/// A whole number, which may be written as `1.0` or `1e3`, and without quotes also in hexadecimal (`0x1f`) or octal (`0644`,
/// `0o644`).
pub(super) fn integer(text: &str, plain: bool) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if plain && let Some((radix, digits)) = other_radix(digits) {
        let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
        return Some(if text.starts_with('-') { -magnitude } else { magnitude });
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let value = decimal(text)?;
    // Beyond, an f64 is no exact number anyway, and no integer type of protobuf is that large.
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

fn other_radix(digits: &str) -> Option<(u32, &str)> {
    let rest = digits.strip_prefix('0').filter(|rest| !rest.is_empty())?;
    match rest.as_bytes()[0] {
        b'x' | b'X' => Some((16, &rest[1..])),
        b'o' => Some((8, &rest[1..])),
        // With an 8 or a 9 in it, programs disagree about what it is.
        _ => rest.bytes().all(|byte| byte.is_ascii_digit()).then_some((8, rest)),
    }
}

/// A number, `NaN`, `Infinity` or `-Infinity`.
pub(super) fn float(text: &str, plain: bool) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" if plain => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" if plain => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" if plain => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    #[expect(clippy::cast_precision_loss, reason = "that is what asking for a float means")]
    let of_other_radix = || integer(text, plain).map(|value| value as f64);
    match text.trim_start_matches(['-', '+']).strip_prefix('0') {
        Some(rest) if plain && !rest.starts_with(['.', 'e', 'E']) && !rest.is_empty() => of_other_radix(),
        _ => decimal(text),
    }
}

fn decimal(text: &str) -> Option<f64> {
    let shaped = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|value: &f64| shaped && value.is_finite())
}

/// Base64, of either alphabet, padded or not.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    if text.contains(['-', '_']) { URL_SAFE.decode(text).ok() } else { STANDARD.decode(text).ok() }
}

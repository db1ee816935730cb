//! Which trace a request belongs to: W3C Trace Context (`traceparent`, `tracestate`) and Zipkin's B3, as one header or as
//! several, read and written as Envoy's tracers do.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use lateen_engine::message::Headers;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// A span's place in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub trace: TraceId,
    pub span: u64,
    pub parent: Option<u64>,
    pub sampled: bool,
    /// The parent is somebody else's.
    pub is_remote: bool,
    /// `tracestate`, as it came.
    pub state: String,
    pub carrier: Carrier,
}

/// Zipkin's may have 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceId {
    Wide(u128),
    Narrow(u64),
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wide(id) => write!(f, "{id:032x}"),
            Self::Narrow(id) => write!(f, "{id:016x}"),
        }
    }
}

impl TraceId {
    pub(crate) fn wide(self) -> u128 {
        match self {
            Self::Wide(id) => id,
            Self::Narrow(id) => id.into(),
        }
    }
}

/// The headers that upstreams are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    W3c,
    /// `b3`, and W3C's too if that is asked for.
    B3Single {
        w3c: bool,
    },
    /// `x-b3-…`, and W3C's too if that is asked for.
    B3Multi {
        w3c: bool,
    },
}

/// What a request says of its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub trace: TraceId,
    pub span: u64,
    pub parent: Option<u64>,
    pub state: String,
}

/// It says something that nobody understands: it is left as it is, and is not traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// `traceparent` and `tracestate` (W3C Trace Context section 3), and whether the trace is recorded.
pub(super) fn of_w3c(headers: &Headers) -> Result<Option<(Said, bool)>, Malformed> {
    let Some(value) = headers.get(&TRACEPARENT) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Malformed)?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return Err(Malformed) };
    if text.len() != 55 || !is_hex(version, 2) || !is_hex(flags, 2) {
        return Err(Malformed);
    }
    let trace = wide(trace).filter(|id| *id != 0).ok_or(Malformed)?;
    let span = narrow(span, 16..=16).filter(|id| *id != 0).ok_or(Malformed)?;
    let flags = u8::from_str_radix(flags, 16).map_err(|_| Malformed)?;
    let states: Vec<&str> = headers.get_all(&TRACESTATE).filter_map(|value| value.to_str().ok()).collect();
    Ok(Some((Said { trace: TraceId::Wide(trace), span, parent: None, state: states.join(",") }, flags & 1 == 1)))
}

/// What B3's headers say: the context, and whether the trace is recorded, either of which may be missing.
pub(super) fn of_b3(headers: &Headers) -> Result<(Option<Said>, Option<bool>), Malformed> {
    match headers.get(&B3) {
        Some(value) => {
            let text = value.to_str().map_err(|_| Malformed)?;
            single(text)
        }
        None => several(headers),
    }
}

/// By which headers a client of Zipkin's speaks.
pub(super) fn carrier(headers: &Headers, w3c: bool) -> Carrier {
    if headers.contains(&B3) { Carrier::B3Single { w3c } } else { Carrier::B3Multi { w3c } }
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`, or the decision alone.
fn single(text: &str) -> Result<(Option<Said>, Option<bool>), Malformed> {
    let decision = |text: &str| match text {
        "0" => Ok(false),
        "1" | "d" => Ok(true),
        _ => Err(Malformed),
    };
    let parts: Vec<&str> = text.split('-').collect();
    let (trace, span, sampled, parent) = match parts[..] {
        [alone] => return Ok((None, Some(decision(alone)?))),
        [trace, span] => (trace, span, None, None),
        [trace, span, sampled] => (trace, span, Some(decision(sampled)?), None),
        [trace, span, sampled, parent] => (trace, span, Some(decision(sampled)?), Some(parent)),
        _ => return Err(Malformed),
    };
    let trace = match trace.len() {
        32 => TraceId::Wide(wide(trace).ok_or(Malformed)?),
        _ => TraceId::Narrow(narrow(trace, 16..=16).ok_or(Malformed)?),
    };
    let span = narrow(span, 16..=16).ok_or(Malformed)?;
    let parent = parent.map(|parent| narrow(parent, 16..=16).ok_or(Malformed)).transpose()?;
    Ok((Some(Said { trace, span, parent, state: String::new() }), sampled))
}

/// `x-b3-traceid`, `x-b3-spanid`, `x-b3-parentspanid`, `x-b3-sampled`.
fn several(headers: &Headers) -> Result<(Option<Said>, Option<bool>), Malformed> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().map_err(|_| Malformed)).transpose();
    let sampled = text(&B3_SAMPLED)?.map(|sampled| sampled == "1" || sampled == "true");
    let (Some(trace), Some(span)) = (text(&B3_TRACE)?, text(&B3_SPAN)?) else { return Ok((None, sampled)) };
    let trace = match trace.len() {
        32 => TraceId::Wide(wide(trace).ok_or(Malformed)?),
        _ => TraceId::Narrow(narrow(trace, 1..=16).ok_or(Malformed)?),
    };
    let parent = text(&B3_PARENT)?.filter(|parent| !parent.is_empty());
    let parent = parent.map(|parent| narrow(parent, 1..=16).ok_or(Malformed)).transpose()?;
    let span = narrow(span, 1..=16).ok_or(Malformed)?;
    Ok((Some(Said { trace, span, parent, state: String::new() }), sampled))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn wide(text: &str) -> Option<u128> {
    u128::from_str_radix(Some(text).filter(|text| is_hex(text, 32))?, 16).ok()
}

fn narrow(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<u64> {
    u64::from_str_radix(Some(text).filter(|text| lengths.contains(&text.len()) && is_hex(text, text.len()))?, 16).ok()
}

impl Context {
    /// Tells the upstream.
    pub(crate) fn inject(&self, headers: &mut Headers) {
        match self.carrier {
            Carrier::W3c => {
                self.inject_w3c(headers);
                // As in Envoy also where there is none.
                headers.set(TRACESTATE, value(&self.state));
            }
            Carrier::B3Single { w3c } => {
                let mut text = format!("{}-{:016x}-{}", self.trace, self.span, u8::from(self.sampled));
                if let Some(parent) = self.parent {
                    // Writing to a String does not fail.
                    let _ = write!(text, "-{parent:016x}");
                }
                headers.set(B3, value(&text));
                if w3c {
                    self.inject_w3c(headers);
                }
            }
            Carrier::B3Multi { w3c } => {
                headers.set(B3_TRACE, value(&self.trace.to_string()));
                headers.set(B3_SPAN, value(&format!("{:016x}", self.span)));
                if let Some(parent) = self.parent {
                    headers.set(B3_PARENT, value(&format!("{parent:016x}")));
                }
                headers.set(B3_SAMPLED, HeaderValue::from_static(if self.sampled { "1" } else { "0" }));
                if w3c {
                    self.inject_w3c(headers);
                }
            }
        }
    }

    fn inject_w3c(&self, headers: &mut Headers) {
        let flags = u8::from(self.sampled);
        headers.set(TRACEPARENT, value(&format!("00-{:032x}-{:016x}-{flags:02x}", self.trace.wide(), self.span)));
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("it is made of digits and hyphens, or came as a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "463ac35c9f6413ad48485a3953bb6124";
    const SPAN: &str = "a2fb4a1d1a96d312";

    fn headers(fields: &[(&'static str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("it is a value"));
        }
        headers
    }

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let (said, sampled) = of_w3c(&headers(&[("traceparent", &text), ("tracestate", "a=b"), ("tracestate", "c=d")]))
            .expect("it is well formed")
            .expect("there is one");
        assert!(sampled);
        assert_eq!(said.state, "a=b,c=d");
        let context = Context {
            trace: said.trace,
            span: said.span,
            parent: None,
            sampled,
            is_remote: false,
            state: said.state,
            carrier: Carrier::W3c,
        };
        let mut written = Headers::default();
        context.inject(&mut written);
        assert_eq!(written.get(&TRACEPARENT).map(HeaderValue::as_bytes), Some(text.as_bytes()));
    }

    #[test]
    fn what_is_no_traceparent_is_told_from_none() {
        assert_eq!(of_w3c(&Headers::default()), Ok(None));
        for text in [
            "garbage".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-+63ac35c9f6413ad48485a3953bb6124-{SPAN}-01"),
        ] {
            assert_eq!(of_w3c(&headers(&[("traceparent", &text)])), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn both_forms_of_b3_say_the_same() {
        let one = of_b3(&headers(&[("b3", &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"))]));
        let several = of_b3(&headers(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
            ("x-b3-sampled", "true"),
        ]));
        assert_eq!(one, several);
        let (said, sampled) = one.expect("it is well formed");
        assert_eq!(sampled, Some(true));
        assert_eq!(
            said.map(|said| (said.span, said.parent)),
            Some((0xa2fb_4a1d_1a96_d312, Some(0x05e3_ac9a_4f6e_3b90)))
        );
        let narrow = of_b3(&headers(&[("b3", &format!("{SPAN}-{SPAN}"))])).expect("it is well formed");
        assert_eq!(narrow.0.map(|said| said.trace), Some(TraceId::Narrow(0xa2fb_4a1d_1a96_d312)));
        assert_eq!(of_b3(&headers(&[("b3", "d")])), Ok((None, Some(true))));
        assert_eq!(of_b3(&headers(&[("x-b3-sampled", "0")])), Ok((None, Some(false))));
        for text in ["", "2", "rubbish", "a-b", "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-x"] {
            assert_eq!(of_b3(&headers(&[("b3", text)])), Err(Malformed), "{text}");
        }
        assert_eq!(of_b3(&headers(&[("x-b3-traceid", "zz"), ("x-b3-spanid", SPAN)])), Err(Malformed));
    }
}

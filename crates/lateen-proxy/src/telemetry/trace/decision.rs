//! Whether a request is traced. The decision is written into its id, so that all proxies that see the id decide alike
//! (Envoy's `mutateTracingRequestHeader` and its UUID request ids).

use http::{HeaderName, HeaderValue};
use lateen_engine::config::tracing::{RequestIds, Tracing};
use lateen_engine::message::Headers;

use lateen_engine::headers::REQUEST_ID;

const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");

/// Why a request is traced, or that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    NotTraceable,
    Sampling,
    ServiceForced,
    ClientForced,
}

/// Where an id says it: the digit that tells the version of a UUID.
const PLACE: usize = 14;
const LENGTH: usize = 36;

impl Reason {
    pub(crate) fn is_traced(self) -> bool {
        self != Self::NotTraceable
    }

    fn letter(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    /// What an id says.
    fn of(id: &[u8]) -> Self {
        match id.get(PLACE) {
            Some(b'9') if id.len() == LENGTH => Self::Sampling,
            Some(b'a') if id.len() == LENGTH => Self::ServiceForced,
            Some(b'b') if id.len() == LENGTH => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }
}

/// Decides, and has the id of the request say so. `random`: for what the id does not decide.
pub(crate) fn decide(config: &Tracing, ids: RequestIds, headers: &mut Headers, random: u64) -> Reason {
    if !ids.decide_sampling {
        return Reason::Sampling;
    }
    let Some(id) = headers.get(&REQUEST_ID).cloned() else { return Reason::NotTraceable };
    let Some(drawn) = number(id.as_bytes()) else { return Reason::NotTraceable };
    let drawn = drawn % 10_000;
    let said = Reason::of(id.as_bytes());
    let mut reason = said;
    if reason == Reason::NotTraceable {
        if headers.contains(&CLIENT_TRACE_ID) && random % 100 < u64::from(config.client_sampling) {
            reason = Reason::ClientForced;
        } else if headers.contains(&FORCE_TRACE) {
            reason = Reason::ServiceForced;
        } else if drawn < config.random_sampling {
            reason = Reason::Sampling;
        }
    }
    if reason.is_traced() && drawn >= config.overall_sampling {
        reason = Reason::NotTraceable;
    }
    if reason != said && ids.pack_trace_reason && id.len() == LENGTH {
        let mut text = id.as_bytes().to_vec();
        text[PLACE] = reason.letter();
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.set(REQUEST_ID, value);
        }
    }
    reason
}

/// The first eight digits of an id.
fn number(id: &[u8]) -> Option<u32> {
    let digits = id.get(..8).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000063-29b8-4ee4-ad6d-7f569c5aac5f";

    fn config(random_sampling: u32, overall_sampling: u32) -> Tracing {
        Tracing {
            provider: None,
            egress: true,
            client_sampling: 100,
            random_sampling,
            overall_sampling,
            max_path_length: 256,
            tags: Vec::new(),
            spawn_upstream_span: false,
            operation: None,
            upstream_operation: None,
            propagates: true,
        }
    }

    fn decided(config: &Tracing, fields: &[(&'static str, &str)]) -> (Reason, String) {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("it is a value"));
        }
        let reason = decide(config, RequestIds::default(), &mut headers, 0);
        let id = headers.get(&REQUEST_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        (reason, id.unwrap_or_default())
    }

    #[test]
    fn an_id_decides_and_says_what_was_decided() {
        // 0x63 is 99.
        let id = |letter: char| format!("00000063-29b8-{letter}ee4-ad6d-7f569c5aac5f");
        assert_eq!(decided(&config(100, 10_000), &[("x-request-id", ID)]), (Reason::Sampling, id('9')));
        assert_eq!(decided(&config(99, 10_000), &[("x-request-id", ID)]), (Reason::NotTraceable, id('4')));
        let asks = [("x-request-id", ID), ("x-client-trace-id", "c")];
        assert_eq!(decided(&config(0, 10_000), &asks), (Reason::ClientForced, id('b')));
        let forces = [("x-request-id", ID), ("x-envoy-force-trace", "1")];
        assert_eq!(decided(&config(0, 10_000), &forces), (Reason::ServiceForced, id('a')));
        // Decided before, elsewhere; or too much for the bound on all.
        assert_eq!(decided(&config(0, 10_000), &[("x-request-id", &id('a'))]), (Reason::ServiceForced, id('a')));
        assert_eq!(decided(&config(0, 99), &[("x-request-id", &id('a'))]), (Reason::NotTraceable, id('4')));
    }

    #[test]
    fn an_id_of_somebody_elses_making_decides_nothing() {
        let all = config(10_000, 10_000);
        for id in ["", "short", "zzzzzzzz-29b8-4ee4-ad6d-7f569c5aac5f", "+0000063-29b8-4ee4-ad6d-7f569c5aac5f"] {
            assert_eq!(decided(&all, &[("x-request-id", id)]), (Reason::NotTraceable, id.to_owned()));
        }
        assert_eq!(decided(&all, &[]).0, Reason::NotTraceable);
        // Enough digits to decide by, but no place to say so.
        assert_eq!(decided(&all, &[("x-request-id", "0123456789")]), (Reason::Sampling, "0123456789".to_owned()));
    }
}

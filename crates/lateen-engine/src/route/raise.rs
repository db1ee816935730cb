//! What a route makes of a request's head on its way up: path, host, headers, and what it may ask for in them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::action::{Chosen, Forward, HostRewrite};
use super::format::Operator;
use super::retry_policy::RetryPolicy;
use super::{Mutations, Route};
use crate::headers::{
    EXPECTED_TIMEOUT, FORWARDED_HOST, MAX_RETRIES, ORIGINAL_HOST, ORIGINAL_PATH, PER_TRY_TIMEOUT, RETRY_GRPC_ON,
    RETRY_ON, UPSTREAM_TIMEOUT, grpc_timeout, millis, number,
};
use crate::message::{Headers, RequestHead};

/// What a request asks of this proxy and of none behind it.
static ASKED_OF_ROUTER: [HeaderName; 5] = [RETRY_ON, RETRY_GRPC_ON, MAX_RETRIES, UPSTREAM_TIMEOUT, PER_TRY_TIMEOUT];

/// How a head is changed besides what the route says.
#[derive(Clone, Copy, Debug)]
pub struct Raising {
    /// The time that the host is told to have.
    pub timeout: Option<Duration>,
    /// The request has headers of Envoy's, by which it may ask for this and that.
    pub asks: bool,
    /// Hosts are told what was changed, and for how long is waited (`suppress_envoy_headers` is off).
    pub tells: bool,
}

impl Forward {
    /// How long the whole exchange may take. Envoy's order: the request's own word where it may have one (and `asks` for
    /// anything), gRPC's deadline, the route.
    pub fn timeout(&self, head: &RequestHead, asks: bool) -> Option<Duration> {
        let mut timeout = self.timeout;
        if let Some(most) = self.max_grpc_timeout
            && head.is_grpc()
            && let Some(asked) = grpc_timeout(&head.headers)
        {
            let asked = self.grpc_timeout_offset.map_or(asked, |offset| asked.saturating_sub(offset));
            timeout = Some(if most.is_zero() { asked } else { asked.min(most) });
        }
        if self.max_stream.is_some() {
            return None;
        }
        let own = if asks { millis(&head.headers, &UPSTREAM_TIMEOUT) } else { None };
        own.or(timeout).filter(|timeout| !timeout.is_zero())
    }

    /// The route's policy with what the request asks for.
    pub fn retries(&self, head: &RequestHead) -> Option<Arc<RetryPolicy>> {
        let asked = match (text(head, &RETRY_ON), text(head, &RETRY_GRPC_ON)) {
            (Some(http), Some(grpc)) => Some(format!("{http},{grpc}")),
            (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
            (None, None) => None,
        };
        let most = text(head, &MAX_RETRIES).and_then(|text| text.parse().ok());
        let mut policy = RetryPolicy::from_request(self.retry.as_deref(), asked.as_deref(), most)?;
        if let Some(per_try) = millis(&head.headers, &PER_TRY_TIMEOUT) {
            policy.per_try_timeout = Some(per_try);
        }
        Some(Arc::new(policy))
    }

    /// Whether headers are added or removed on the way up.
    pub fn changes_headers(&self, route: &Route, chosen: &Chosen<'_>) -> bool {
        !route.request_headers.is_empty() || of_part(chosen).is_some_and(|mutations| !mutations.is_empty())
    }

    /// Makes the head that came the one that goes up, and gives the path that it had if that was rewritten. `value` appends
    /// what an operator stands for, and is given the headers as they came.
    pub fn raise(
        &self,
        (route, chosen): (&Route, &Chosen<'_>),
        head: &mut RequestHead,
        Raising { timeout, asks, tells }: Raising,
        value: impl Fn(&Operator, &Headers, &mut Vec<u8>),
    ) -> Option<Bytes> {
        if asks {
            head.headers.retain(|name, _| !ASKED_OF_ROUTER.contains(name));
        }
        let path = self.rewritten(route, head);
        let original = path.map(|path| std::mem::replace(&mut head.path, Bytes::from(path)));
        if let Some(original) = original.as_ref().filter(|_| tells) {
            head.headers.set(ORIGINAL_PATH, HeaderValue::from_bytes(original).expect("a path is visible ASCII"));
        }
        if let Some(host) = self.rewritten_host(head, chosen) {
            if self.append_x_forwarded_host
                && let Ok(value) = HeaderValue::from_bytes(&head.authority)
            {
                head.headers.append(FORWARDED_HOST, value);
            }
            if tells && let Ok(value) = HeaderValue::from_bytes(&head.authority) {
                head.headers.set(ORIGINAL_HOST, value);
            }
            head.authority = host;
        }
        if self.changes_headers(route, chosen) {
            // Operators read the request as it came.
            let came = head.headers.clone();
            for mutations in of_part(chosen).into_iter().chain([&route.request_headers]) {
                mutations.apply(&mut head.headers, Some(&mut head.authority), |operator, line| {
                    value(operator, &came, line);
                });
            }
        }
        if let Some(timeout) = timeout.filter(|_| tells) {
            head.headers.set(EXPECTED_TIMEOUT, number(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
        }
        original
    }

    fn rewritten_host(&self, head: &RequestHead, chosen: &Chosen<'_>) -> Option<Bytes> {
        match (&chosen.weighted.and_then(|weighted| weighted.host.clone()), &self.host) {
            (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(host.clone()),
            (None, HostRewrite::Header(name)) => {
                head.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()))
            }
            (None, HostRewrite::None | HostRewrite::Auto) => None,
        }
    }
}

fn of_part<'a>(chosen: &Chosen<'a>) -> Option<&'a Mutations> {
    chosen.weighted.map(|weighted| &weighted.request_headers)
}

fn text<'a>(head: &'a RequestHead, name: &HeaderName) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

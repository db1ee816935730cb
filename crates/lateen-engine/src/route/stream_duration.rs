//! How long a whole request may take, from its first byte to the last of its answer: `RouteAction.MaxStreamDuration` over
//! `HttpProtocolOptions.max_stream_duration`.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action as proto;
use http::HeaderValue;

use crate::config::error::At;
use crate::config::scalar::duration;

/// What a route says. A route that says anything, be it nothing, has no time-out of the other kind (`RouteAction.timeout`,
/// `max_grpc_timeout` and what a request may ask for by `x-envoy-upstream-rq-timeout-ms`): Envoy's "new timeouts".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// None: as the connection manager says; zero: without limit.
    own: Option<Duration>,
    /// None: `grpc-timeout` is not looked at; zero: taken as it is.
    grpc_most: Option<Duration>,
    grpc_offset: Option<Duration>,
}

impl MaxStreamDuration {
    pub(super) fn from_xds(config: &proto::MaxStreamDuration, at: &At) -> Self {
        let read = |value: Option<&_>, name: &str| duration(value, &at.field(name));
        Self {
            own: read(config.max_stream_duration.as_ref(), "max_stream_duration"),
            grpc_most: read(config.grpc_timeout_header_max.as_ref(), "grpc_timeout_header_max"),
            grpc_offset: read(config.grpc_timeout_header_offset.as_ref(), "grpc_timeout_header_offset"),
        }
    }

    /// The time for a request that asks for `asked` by `grpc-timeout`; none: without limit.
    pub fn limit(&self, of_manager: Option<Duration>, asked: Option<Duration>) -> Option<Duration> {
        match (asked, self.grpc_most) {
            (Some(asked), Some(most)) => {
                let capped = if most.is_zero() { asked } else { asked.min(most) };
                Some(self.grpc_offset.map_or(capped, |offset| capped.saturating_sub(offset)))
            }
            _ => self.own.or(of_manager).filter(|limit| !limit.is_zero()),
        }
    }
}

/// `grpc-timeout` for a time: eight digits at most, in the smallest unit from milliseconds on that they suffice for.
pub fn grpc_timeout(time: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let mut value = time.as_millis();
    let mut unit = 'm';
    for (factor, larger) in [(1000, 'S'), (60, 'M'), (60, 'H')] {
        if value <= MOST {
            break;
        }
        (value, unit) = (value / factor, larger);
    }
    HeaderValue::try_from(format!("{}{unit}", value.min(MOST))).expect("digits and a letter are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_goes_before_the_manager_and_grpc_before_both() {
        let millis = Duration::from_millis;
        let of = |own: Option<u64>, most: Option<u64>, offset: Option<u64>| MaxStreamDuration {
            own: own.map(millis),
            grpc_most: most.map(millis),
            grpc_offset: offset.map(millis),
        };
        for (config, of_manager, asked, expected) in [
            (of(None, None, None), None, None, None),
            (of(None, None, None), Some(5), Some(9), Some(5)),
            (of(Some(3), None, None), Some(5), Some(9), Some(3)),
            (of(Some(0), None, None), Some(5), None, None),
            (of(Some(3), Some(0), None), Some(5), None, Some(3)),
            (of(Some(3), Some(0), None), None, Some(9), Some(9)),
            (of(Some(3), Some(7), Some(2)), None, Some(9), Some(5)),
            (of(Some(3), Some(7), Some(2)), None, Some(6), Some(4)),
            (of(None, Some(0), Some(20)), None, Some(9), Some(0)),
        ] {
            let limit = config.limit(of_manager.map(millis), asked.map(millis));
            assert_eq!(limit, expected.map(millis), "{config:?}, {of_manager:?}, {asked:?}");
        }
    }

    #[test]
    fn times_are_written_as_grpc_has_them() {
        for (millis, text) in [
            (0, "0m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (100_000_000_000, "1666666M"),
            (7_000_000_000_000, "1944444H"),
            (u64::MAX, "99999999H"),
        ] {
            assert_eq!(grpc_timeout(Duration::from_millis(millis)), text);
        }
    }
}

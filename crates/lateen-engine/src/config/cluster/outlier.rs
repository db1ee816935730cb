//! `envoy.config.cluster.v3.OutlierDetection`: when a host that fails is kept from requests, and for how long.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::google::protobuf;

use crate::config::error::{At, refuse};
use crate::config::scalar::{bool_or, duration, u32_or};

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

impl Cause {
    const COUNT: usize = 7;

    /// As Envoy's statistics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::LocalOriginSuccessRate => "local_origin_success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::LocalOriginFailurePercentage => "local_origin_failure_percentage",
        }
    }
}

/// Which hosts are judged by the share of their requests that succeeded within an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Nobody is judged while fewer hosts than these have had enough requests.
    pub minimum_hosts: usize,
    /// Of a host, to be judged.
    pub request_volume: u64,
    /// For success rates: so many standard deviations below the mean is too low. For failures: so many percent are too many.
    pub limit: f64,
}

/// A count of zero is never reached. What is not enforced is detected and counted all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    /// Failures to connect and time-outs are counted apart from answers.
    pub split_local_origin: bool,
    pub success_rate: Rate,
    pub failure_percentage: Rate,
    /// By [`Cause`], in percent of the cases.
    enforced: [u32; Cause::COUNT],
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Up to so much comes on top of each ejection's time.
    pub max_ejection_time_jitter: Duration,
    /// In percent of hosts.
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
}

impl OutlierDetection {
    /// Whether a case that drew `random` is enforced.
    pub fn enforces(&self, cause: Cause, random: u64) -> bool {
        random % 100 < u64::from(self.enforced[cause as usize])
    }

    /// Envoy's defaults hold for what is not set. Hosts are not checked actively, so that
    /// `successful_active_health_check_uneject_host` is about nothing. Refused: `monitors`, which are extensions by name, of which
    /// there are none here; and `detect_degraded_hosts`, by which an answer's `x-envoy-degraded` makes its host the last choice
    /// for a while: whoever relies on that must not be served as if nothing had been said.
    pub(super) fn from_xds(outlier: &proto::OutlierDetection, at: &At) -> Self {
        refuse!(at, outlier; monitors, detect_degraded_hosts);
        let number = |value: &Option<protobuf::UInt32Value>, default| u32_or(value.as_ref(), default);
        let percent = |value: &Option<protobuf::UInt32Value>, default, name: &str| {
            let percent = number(value, default);
            if percent > 100 {
                at.field(name).error("must be at most 100");
            }
            percent.min(100)
        };
        let time = |value: &Option<protobuf::Duration>, default: Duration, name: &str| {
            let time = duration(value.as_ref(), &at.field(name));
            if time.is_some_and(|time| time.is_zero()) {
                at.field(name).error("must be above 0");
            }
            time.unwrap_or(default)
        };
        let base = time(&outlier.base_ejection_time, Duration::from_secs(30), "base_ejection_time");
        let most = time(&outlier.max_ejection_time, base.max(Duration::from_secs(300)), "max_ejection_time");
        if most < base {
            at.field("max_ejection_time").error("must not be less than base_ejection_time");
        }
        let jitter = duration(outlier.max_ejection_time_jitter.as_ref(), &at.field("max_ejection_time_jitter"));
        let hosts = |value: &Option<protobuf::UInt32Value>| number(value, 5) as usize;
        let failures = percent(&outlier.failure_percentage_threshold, 85, "failure_percentage_threshold");
        Self {
            consecutive_5xx: number(&outlier.consecutive_5xx, 5),
            consecutive_gateway_failure: number(&outlier.consecutive_gateway_failure, 5),
            consecutive_local_origin_failure: number(&outlier.consecutive_local_origin_failure, 5),
            split_local_origin: outlier.split_external_local_origin_errors,
            success_rate: Rate {
                minimum_hosts: hosts(&outlier.success_rate_minimum_hosts),
                request_volume: number(&outlier.success_rate_request_volume, 100).into(),
                // In thousandths.
                limit: f64::from(number(&outlier.success_rate_stdev_factor, 1900)) / 1000.0,
            },
            failure_percentage: Rate {
                minimum_hosts: hosts(&outlier.failure_percentage_minimum_hosts),
                request_volume: number(&outlier.failure_percentage_request_volume, 50).into(),
                limit: failures.into(),
            },
            enforced: [
                percent(&outlier.enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx"),
                percent(&outlier.enforcing_consecutive_gateway_failure, 0, "enforcing_consecutive_gateway_failure"),
                percent(
                    &outlier.enforcing_consecutive_local_origin_failure,
                    100,
                    "enforcing_consecutive_local_origin_failure",
                ),
                percent(&outlier.enforcing_success_rate, 100, "enforcing_success_rate"),
                percent(&outlier.enforcing_local_origin_success_rate, 100, "enforcing_local_origin_success_rate"),
                percent(&outlier.enforcing_failure_percentage, 0, "enforcing_failure_percentage"),
                percent(
                    &outlier.enforcing_failure_percentage_local_origin,
                    0,
                    "enforcing_failure_percentage_local_origin",
                ),
            ],
            interval: time(&outlier.interval, Duration::from_secs(10), "interval"),
            base_ejection_time: base,
            max_ejection_time: most,
            max_ejection_time_jitter: jitter.unwrap_or_default(),
            max_ejection_percent: percent(&outlier.max_ejection_percent, 10, "max_ejection_percent"),
            always_eject_one: bool_or(outlier.always_eject_one_host.as_ref(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(outlier: proto::OutlierDetection) -> Result<OutlierDetection, Vec<String>> {
        let at = At::resource("c");
        let read = OutlierDetection::from_xds(&outlier, &at);
        at.finish(Some(read)).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_set_is_as_in_envoy() {
        let rule = read(proto::OutlierDetection::default()).expect("nothing is wrong");
        let enforced = [
            Cause::Consecutive5xx,
            Cause::ConsecutiveGatewayFailure,
            Cause::ConsecutiveLocalOriginFailure,
            Cause::SuccessRate,
            Cause::LocalOriginSuccessRate,
            Cause::FailurePercentage,
            Cause::LocalOriginFailurePercentage,
        ]
        .map(|cause| rule.enforces(cause, 99));
        assert_eq!(enforced, [true, false, true, true, true, false, false]);
        assert_eq!(rule.success_rate, Rate { minimum_hosts: 5, request_volume: 100, limit: 1.9 });
        assert_eq!(rule.failure_percentage, Rate { minimum_hosts: 5, request_volume: 50, limit: 85.0 });
        let times = [rule.interval, rule.base_ejection_time, rule.max_ejection_time, rule.max_ejection_time_jitter];
        assert_eq!(times.map(|time| time.as_secs()), [10, 30, 300, 0]);
        assert_eq!((rule.max_ejection_percent, rule.always_eject_one), (10, false));
    }

    #[test]
    fn a_share_of_the_cases_is_enforced() {
        let outlier = proto::OutlierDetection {
            enforcing_consecutive_5xx: Some(protobuf::UInt32Value { value: 30 }),
            ..proto::OutlierDetection::default()
        };
        let rule = read(outlier).expect("nothing is wrong");
        assert_eq!((0..1000).filter(|random| rule.enforces(Cause::Consecutive5xx, *random)).count(), 300);
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        let seconds = |seconds| Some(protobuf::Duration { seconds, nanos: 0 });
        let outlier = proto::OutlierDetection {
            interval: seconds(0),
            base_ejection_time: seconds(10),
            max_ejection_time: seconds(5),
            enforcing_success_rate: Some(protobuf::UInt32Value { value: 101 }),
            detect_degraded_hosts: Some(protobuf::BoolValue { value: true }),
            ..proto::OutlierDetection::default()
        };
        assert_eq!(
            read(outlier).expect_err("all of it is wrong"),
            [
                "c: detect_degraded_hosts: is not supported",
                "c: max_ejection_time: must not be less than base_ejection_time",
                "c: enforcing_success_rate: must be at most 100",
                "c: interval: must be above 0",
            ]
        );
    }
}

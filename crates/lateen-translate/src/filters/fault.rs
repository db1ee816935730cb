//! Fault injection of a VirtualService route, as configuration of the fault filter.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use lateen_api::networking::virtual_service::{Abort, Delay, Fault};
use lateen_api::scalar::Percent;

use crate::proto::duration;

/// The filter's configuration for one route; `None` when nothing of it is in force.
pub(crate) fn translate(fault: &Fault) -> Option<fault::HttpFault> {
    let delay = fault.delay.as_ref().and_then(delay);
    let abort = fault.abort.as_ref().and_then(abort);
    (delay.is_some() || abort.is_some()).then(|| fault::HttpFault { delay, abort, ..fault::HttpFault::default() })
}

/// A percentage left out is zero: a fault is never meant by accident.
fn delay(delay: &Delay) -> Option<common::FaultDelay> {
    use common::fault_delay::FaultDelaySecifier;
    let fixed = delay.fixed_delay?;
    let percentage = match (delay.percentage, delay.percent) {
        (Some(percentage), _) => millionths(percentage),
        (None, percent) => whole(percent.unwrap_or(0)),
    };
    Some(common::FaultDelay {
        percentage: Some(percentage),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(fixed.0))),
    })
}

fn abort(abort: &Abort) -> Option<fault::FaultAbort> {
    use fault::fault_abort::ErrorType;
    let error = if let Some(status) = abort.http_status {
        ErrorType::HttpStatus(u32::try_from(status).ok()?)
    } else {
        ErrorType::GrpcStatus(grpc_code(abort.grpc_status.as_deref()?)?)
    };
    Some(fault::FaultAbort {
        percentage: Some(abort.percentage.map_or_else(|| whole(0), millionths)),
        error_type: Some(error),
        ..fault::FaultAbort::default()
    })
}

pub(crate) fn millionths(percent: Percent) -> FractionalPercent {
    FractionalPercent { numerator: percent.per_million(), denominator: DenominatorType::Million as i32 }
}

pub(crate) fn whole(percent: i32) -> FractionalPercent {
    FractionalPercent { numerator: u32::try_from(percent).unwrap_or(0), denominator: DenominatorType::Hundred as i32 }
}

/// The number of a gRPC status name.
fn grpc_code(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.iter().position(|known| *known == name).and_then(|code| u32::try_from(code).ok())
}

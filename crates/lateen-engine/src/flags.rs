//! Why a stream ended as it did: Envoy's response flags, and the answers that a proxy gives by itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

/// Envoy's `%RESPONSE_FLAGS%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ResponseFlag {
    FailedLocalHealthCheck,
    NoHealthyUpstream,
    UpstreamRequestTimeout,
    LocalReset,
    UpstreamRemoteReset,
    UpstreamConnectionFailure,
    UpstreamConnectionTermination,
    UpstreamOverflow,
    NoRouteFound,
    DelayInjected,
    FaultInjected,
    RateLimited,
    UnauthorizedExternalService,
    RateLimitServiceError,
    DownstreamConnectionTermination,
    UpstreamRetryLimitExceeded,
    StreamIdleTimeout,
    InvalidEnvoyRequestHeaders,
    DownstreamProtocolError,
    UpstreamMaxStreamDurationReached,
    DurationTimeout,
    UpstreamProtocolError,
    NoClusterFound,
    OverloadManager,
    DnsResolutionFailed,
    DownstreamRemoteReset,
}

impl ResponseFlag {
    /// The short form, as access logs and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailedLocalHealthCheck => "LH",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamRequestTimeout => "UT",
            Self::LocalReset => "LR",
            Self::UpstreamRemoteReset => "UR",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamOverflow => "UO",
            Self::NoRouteFound => "NR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::RateLimited => "RL",
            Self::UnauthorizedExternalService => "UAEX",
            Self::RateLimitServiceError => "RLSE",
            Self::DownstreamConnectionTermination => "DC",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::StreamIdleTimeout => "SI",
            Self::InvalidEnvoyRequestHeaders => "IH",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamMaxStreamDurationReached => "UMSDR",
            Self::DurationTimeout => "DT",
            Self::UpstreamProtocolError => "UPE",
            Self::NoClusterFound => "NC",
            Self::OverloadManager => "OM",
            Self::DnsResolutionFailed => "DF",
            Self::DownstreamRemoteReset => "DR",
        }
    }
}

impl ResponseFlag {
    /// The long form.
    pub fn as_long_str(self) -> &'static str {
        match self {
            Self::FailedLocalHealthCheck => "FailedLocalHealthCheck",
            Self::NoHealthyUpstream => "NoHealthyUpstream",
            Self::UpstreamRequestTimeout => "UpstreamRequestTimeout",
            Self::LocalReset => "LocalReset",
            Self::UpstreamRemoteReset => "UpstreamRemoteReset",
            Self::UpstreamConnectionFailure => "UpstreamConnectionFailure",
            Self::UpstreamConnectionTermination => "UpstreamConnectionTermination",
            Self::UpstreamOverflow => "UpstreamOverflow",
            Self::NoRouteFound => "NoRouteFound",
            Self::DelayInjected => "DelayInjected",
            Self::FaultInjected => "FaultInjected",
            Self::RateLimited => "RateLimited",
            Self::UnauthorizedExternalService => "UnauthorizedExternalService",
            Self::RateLimitServiceError => "RateLimitServiceError",
            Self::DownstreamConnectionTermination => "DownstreamConnectionTermination",
            Self::UpstreamRetryLimitExceeded => "UpstreamRetryLimitExceeded",
            Self::StreamIdleTimeout => "StreamIdleTimeout",
            Self::InvalidEnvoyRequestHeaders => "InvalidEnvoyRequestHeaders",
            Self::DownstreamProtocolError => "DownstreamProtocolError",
            Self::UpstreamMaxStreamDurationReached => "UpstreamMaxStreamDurationReached",
            Self::DurationTimeout => "DurationTimeout",
            Self::UpstreamProtocolError => "UpstreamProtocolError",
            Self::NoClusterFound => "NoClusterFound",
            Self::OverloadManager => "OverloadManagerTerminated",
            Self::DnsResolutionFailed => "DnsResolutionFailed",
            Self::DownstreamRemoteReset => "DownstreamRemoteReset",
        }
    }

    /// By its short form.
    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|flag| flag.as_str() == name)
    }
}

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

impl ResponseFlags {
    pub fn insert(&mut self, flag: ResponseFlag) {
        self.0 |= 1 << flag as u8;
    }

    pub fn contains(self, flag: ResponseFlag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        ALL.iter().copied().filter(move |flag| self.contains(*flag))
    }
}

/// Separated by commas; `-` for none.
impl std::fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (number, flag) in self.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.as_str())?;
        }
        Ok(())
    }
}

/// In the order in which Envoy prints them.
const ALL: [ResponseFlag; 26] = [
    ResponseFlag::FailedLocalHealthCheck,
    ResponseFlag::NoHealthyUpstream,
    ResponseFlag::UpstreamRequestTimeout,
    ResponseFlag::LocalReset,
    ResponseFlag::UpstreamRemoteReset,
    ResponseFlag::UpstreamConnectionFailure,
    ResponseFlag::UpstreamConnectionTermination,
    ResponseFlag::UpstreamOverflow,
    ResponseFlag::NoRouteFound,
    ResponseFlag::DelayInjected,
    ResponseFlag::FaultInjected,
    ResponseFlag::RateLimited,
    ResponseFlag::UnauthorizedExternalService,
    ResponseFlag::RateLimitServiceError,
    ResponseFlag::DownstreamConnectionTermination,
    ResponseFlag::UpstreamRetryLimitExceeded,
    ResponseFlag::StreamIdleTimeout,
    ResponseFlag::InvalidEnvoyRequestHeaders,
    ResponseFlag::DownstreamProtocolError,
    ResponseFlag::UpstreamMaxStreamDurationReached,
    ResponseFlag::DurationTimeout,
    ResponseFlag::UpstreamProtocolError,
    ResponseFlag::NoClusterFound,
    ResponseFlag::OverloadManager,
    ResponseFlag::DnsResolutionFailed,
    ResponseFlag::DownstreamRemoteReset,
];

/// An answer of the proxy's own. For a gRPC request the sender turns it into a trailers-only response.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalReply {
    pub status: StatusCode,
    pub body: Bytes,
    /// Added to the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub flag: Option<ResponseFlag>,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub details: std::borrow::Cow<'static, str>,
    /// Set when a gRPC code other than the one that goes with the HTTP status is meant.
    pub grpc_status: Option<u16>,
}

impl LocalReply {
    pub fn new(status: StatusCode, body: impl Into<Bytes>, details: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { status, body: body.into(), headers: Vec::new(), flag: None, details: details.into(), grpc_status: None }
    }

    pub fn flag(mut self, flag: ResponseFlag) -> Self {
        self.flag = Some(flag);
        self
    }

    /// The gRPC status of the answer: the one set, else Envoy's mapping from the HTTP status.
    pub fn grpc_code(&self) -> u16 {
        self.grpc_status.unwrap_or(match self.status.as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        })
    }
}

//! What can go wrong between here and an upstream, in one value from which answer, flag, log and retry follow.

use http::StatusCode;
use lateen_engine::balance::outlier::Outcome;
use lateen_engine::flags::ResponseFlag;
use lateen_engine::route::retry_policy::AttemptFailure;

/// Why an attempt gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub kind: FailureKind,
    /// The transport's own words, for logs and the answer's body.
    pub transport: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection to the host.
    Connect,
    /// No agreement on TLS with it.
    Tls,
    ConnectTimeout,
    /// The connection ended before an answer; `sent`: the whole request had been handed over.
    Terminated {
        sent: bool,
    },
    /// The stream was reset by the upstream.
    Reset {
        sent: bool,
    },
    /// The stream was refused, not processed.
    Refused,
    /// The answer was no HTTP.
    Protocol,
    /// A limit of the cluster.
    Overflow,
    PerTryTimeout,
    /// The client's own body broke off; nothing upstream is to blame.
    Downstream,
    /// The client's body is no HTTP.
    DownstreamProtocol,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind) -> Self {
        Self { kind, transport: None }
    }

    pub(crate) fn with(kind: FailureKind, transport: impl ToString) -> Self {
        Self { kind, transport: Some(transport.to_string()) }
    }

    pub(crate) fn flag(&self) -> ResponseFlag {
        match self.kind {
            FailureKind::Connect | FailureKind::Tls | FailureKind::ConnectTimeout => {
                ResponseFlag::UpstreamConnectionFailure
            }
            FailureKind::Terminated { .. } => ResponseFlag::UpstreamConnectionTermination,
            FailureKind::Reset { .. } | FailureKind::Refused => ResponseFlag::UpstreamRemoteReset,
            FailureKind::Protocol => ResponseFlag::UpstreamProtocolError,
            FailureKind::Overflow => ResponseFlag::UpstreamOverflow,
            FailureKind::PerTryTimeout => ResponseFlag::UpstreamRequestTimeout,
            FailureKind::Downstream => ResponseFlag::DownstreamConnectionTermination,
            FailureKind::DownstreamProtocol => ResponseFlag::DownstreamProtocolError,
        }
    }

    /// What the client is told when no other try is left.
    pub(crate) fn status(&self) -> StatusCode {
        match self.kind {
            FailureKind::PerTryTimeout => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Protocol => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a retry policy asks; none: never to be tried again.
    pub(crate) fn attempt(&self) -> Option<AttemptFailure> {
        match self.kind {
            FailureKind::Connect | FailureKind::Tls | FailureKind::ConnectTimeout => Some(AttemptFailure::Connect),
            FailureKind::Terminated { sent } | FailureKind::Reset { sent } => Some(AttemptFailure::Reset { sent }),
            FailureKind::Refused => Some(AttemptFailure::Refused),
            FailureKind::Protocol => Some(AttemptFailure::Reset { sent: true }),
            FailureKind::PerTryTimeout => Some(AttemptFailure::PerTryTimeout),
            FailureKind::Overflow | FailureKind::Downstream | FailureKind::DownstreamProtocol => None,
        }
    }

    /// Envoy's name of the reset reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self.kind {
            FailureKind::Connect | FailureKind::Tls => "remote connection failure",
            FailureKind::ConnectTimeout => "connection timeout",
            FailureKind::Terminated { .. } => "connection termination",
            FailureKind::Reset { .. } => "remote reset",
            FailureKind::Refused => "remote refused stream reset",
            FailureKind::Protocol => "protocol error",
            FailureKind::Overflow => "overflow",
            FailureKind::PerTryTimeout | FailureKind::Downstream | FailureKind::DownstreamProtocol => "local reset",
        }
    }

    /// What outlier detection is told of it, unless it is the client's doing.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.kind {
            FailureKind::PerTryTimeout => Outcome::TimedOut,
            _ => Outcome::Failed,
        }
    }

    /// Whether there was a connection on which it went wrong.
    pub(crate) fn is_after_connecting(&self) -> bool {
        match self.kind {
            FailureKind::Terminated { .. }
            | FailureKind::Reset { .. }
            | FailureKind::Refused
            | FailureKind::Protocol
            | FailureKind::PerTryTimeout => true,
            FailureKind::Connect
            | FailureKind::Tls
            | FailureKind::ConnectTimeout
            | FailureKind::Overflow
            | FailureKind::Downstream
            | FailureKind::DownstreamProtocol => false,
        }
    }

    /// Whether it is the client's doing.
    pub(crate) fn is_downstream(&self) -> bool {
        matches!(self.kind, FailureKind::Downstream | FailureKind::DownstreamProtocol)
    }

    /// The body of Envoy's answer, after `retries`.
    pub(crate) fn body(&self, retries: u32) -> String {
        let latest = if retries > 0 { "retried and the latest " } else { "" };
        let reason = self.reason();
        match self.kind {
            FailureKind::PerTryTimeout => "upstream request timeout".to_owned(),
            // Why TLS or a socket failed is for the log: a client is not to be told of what is behind the proxy.
            _ => {
                format!("upstream connect error or disconnect/reset before headers. {latest}reset reason: {reason}")
            }
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) fn details(&self) -> String {
        match self.kind {
            FailureKind::PerTryTimeout => "upstream_per_try_timeout".to_owned(),
            _ => {
                let transport = self.transport.as_ref().map(|text| format!("|{text}")).unwrap_or_default();
                format!("upstream_reset_before_response_started{{{}{transport}}}", self.reason()).replace(' ', "_")
            }
        }
    }
}

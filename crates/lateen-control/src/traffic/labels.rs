//! Istio's standard metrics and their labels: what proxies are asked for, and what their answers mean.

use lateen_live::{Counts, Metric, Of};
use serde::{Deserialize, Serialize};

use super::golden::Outcome;
use super::view::{End, Protocol, Service};

/// What an amount of a metric is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Requests,
    Milliseconds,
    Sent,
    Received,
    Opened,
    Closed,
}

/// By whose labels requests are told one by one.
pub(super) const OF_REQUESTS: &str = "istio_requests_total";

/// Istio counts bytes of TCP from where the server stands.
const METRICS: [(&str, Of, Figure); 8] = [
    (OF_REQUESTS, Of::Count, Figure::Requests),
    ("istio_request_duration_milliseconds", Of::Buckets, Figure::Milliseconds),
    ("istio_request_bytes", Of::Sum, Figure::Sent),
    ("istio_response_bytes", Of::Sum, Figure::Received),
    ("istio_tcp_received_bytes_total", Of::Count, Figure::Sent),
    ("istio_tcp_sent_bytes_total", Of::Count, Figure::Received),
    ("istio_tcp_connections_opened_total", Of::Count, Figure::Opened),
    ("istio_tcp_connections_closed_total", Of::Count, Figure::Closed),
];

const LABELS: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_cluster",
    "source_principal",
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "connection_security_policy",
    "response_code",
    "grpc_response_status",
    "response_flags",
];

/// A value of a label is never longer; what is comes from no configuration of ours.
const LONGEST: usize = 512;

/// What every proxy is asked for.
pub(super) fn wanted() -> Counts {
    let metric = |(name, of, _): &(&str, Of, Figure)| Metric { name: (*name).to_owned(), of: (*of).into() };
    Counts { metrics: METRICS.iter().map(metric).collect(), labels: LABELS.map(str::to_owned).to_vec() }
}

/// What the metric of that index is of.
pub(super) fn figure(metric: u32) -> Option<Figure> {
    METRICS.get(usize::try_from(metric).ok()?).map(|(_, _, figure)| *figure)
}

/// Whose proxy it is that tells: the caller's or the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    Source,
    Destination,
}

/// An edge as one of its two proxies sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Side {
    pub reporter: Reporter,
    pub source: End,
    pub destination: End,
    pub service: Service,
    pub protocol: Protocol,
    /// Whether the client has shown a certificate, which only the server's proxy knows.
    pub secured: Option<bool>,
}

/// What a set of labels means; none if it means nothing. A proxy's own end is what the control plane knows it to be, whatever
/// its labels say.
pub(super) fn read(values: &[String], own: &End) -> Option<(Side, Outcome)> {
    if values.len() != LABELS.len() || values.iter().any(|value| value.len() > LONGEST) {
        return None;
    }
    let value = |name: &str| {
        let at = LABELS.iter().position(|label| *label == name)?;
        values.get(at).map(String::as_str).filter(|value| !matches!(*value, "" | "unknown"))
    };
    let text = |name: &str| value(name).map(Box::<str>::from);
    let end = |end: &str| End {
        workload: text(&format!("{end}_workload")),
        namespace: text(&format!("{end}_workload_namespace")),
        app: text(&format!("{end}_app")),
        version: text(&format!("{end}_version")),
        canonical_service: text(&format!("{end}_canonical_service")),
        cluster: text(&format!("{end}_cluster")),
        principal: text(&format!("{end}_principal")),
    };
    let reporter = match value("reporter")? {
        "source" => Reporter::Source,
        "destination" => Reporter::Destination,
        _ => return None,
    };
    let (mut source, mut destination) = (end("source"), end("destination"));
    let told = if reporter == Reporter::Source { &mut source } else { &mut destination };
    *told = End { principal: told.principal.take(), ..own.clone() };
    let side = Side {
        reporter,
        source,
        destination,
        service: Service {
            host: text("destination_service"),
            name: text("destination_service_name"),
            namespace: text("destination_service_namespace"),
        },
        protocol: match value("request_protocol")? {
            "http" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            "tcp" => Protocol::Tcp,
            _ => return None,
        },
        secured: match value("connection_security_policy") {
            Some("mutual_tls") => Some(true),
            Some("none") => Some(false),
            _ => None,
        },
    };
    let plain = |name: &str| value(name).filter(|value| *value != "-").unwrap_or_default().into();
    let number = |name: &str| {
        let digits = value(name).filter(|value| value.len() <= 3 && value.bytes().all(|digit| digit.is_ascii_digit()));
        digits.unwrap_or_default().into()
    };
    let outcome = Outcome {
        code: number("response_code"),
        grpc_status: number("grpc_response_status"),
        flags: plain("response_flags"),
    };
    Some((side, outcome))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Values of all labels, some as given.
    pub(in crate::traffic) fn values(given: &[(&str, &str)]) -> Vec<String> {
        let value = |label: &&str| given.iter().find(|(name, _)| name == label).map_or("unknown", |(_, value)| *value);
        LABELS.iter().map(|label| value(label).to_owned()).collect()
    }

    #[test]
    fn nobody_speaks_for_another() {
        let own = End { workload: Some("mine".into()), namespace: Some("shop".into()), ..End::default() };
        let claimed = [
            ("reporter", "destination"),
            ("request_protocol", "http"),
            ("source_workload", "caller"),
            ("destination_workload", "another"),
            ("destination_workload_namespace", "bank"),
            ("connection_security_policy", "none"),
            ("response_code", "200"),
            ("response_flags", "-"),
        ];
        let (side, outcome) = read(&values(&claimed), &own).expect("it means something");
        assert_eq!(side.destination, own);
        assert_eq!((side.source.workload.as_deref(), side.secured), (Some("caller"), Some(false)));
        assert_eq!((&*outcome.code, &*outcome.flags), ("200", ""));
    }

    #[test]
    fn what_means_nothing_is_not_taken() {
        let own = End::default();
        let good = [("reporter", "source"), ("request_protocol", "tcp")];
        assert!(read(&values(&good), &own).is_some());
        assert!(read(&values(&[("reporter", "waypoint"), ("request_protocol", "tcp")]), &own).is_none());
        assert!(read(&values(&good)[1..], &own).is_none());
        let long = "x".repeat(LONGEST + 1);
        assert!(read(&values(&[good[0], good[1], ("source_app", &long)]), &own).is_none());
    }
}

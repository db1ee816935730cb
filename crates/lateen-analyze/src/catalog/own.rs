//! Our own codes: for what Istio has none.

use lateen_api::Severity::{Error, Info, Warning};

use super::{Entry, entry};

#[rustfmt::skip]
pub(super) const CODES: &[Entry] = &[
    entry("LAT0001", "Syntax", Error, "The text is not YAML.", "See the message; tabs cannot indent, and a key stands once in a map."),
    entry("LAT0002", "UnknownField", Error, "The kind has no such field: nothing would come of it.", "Correct its name or its indentation."),
    entry("LAT0003", "WrongType", Error, "A value of another form than the field has.", "See the message."),
    entry("LAT0004", "UnsupportedKind", Error, "A kind that is not read here.", "See the message for what does its work."),
    entry("LAT0005", "UnsupportedField", Error, "A field that Istio has and that is not honoured here.", "docs/compatibility.md lists what is."),
    entry("LAT0006", "Invalid", Error, "A value that breaks a rule of the kind.", "See the message."),
    entry("LAT0007", "Duplicate", Error, "The same object stands twice; which one counts would be an accident.", "Remove one of them."),
    entry("LAT0008", "Suspicious", Warning, "Legal, and hardly what was meant.", "See the message."),
    entry("LAT0101", "LocalityFailoverByOutlierDetection", Info,
        "Outlier detection alone makes clients use only the endpoints that are near them.",
        "Set loadBalancer.localityLbSetting.enabled, to false or to true."),
    entry("LAT0102", "HiddenSubset", Error,
        "For clients of some namespace another DestinationRule counts, which lacks a subset that is routed to: they get 503.",
        "Merge the rules, or limit one by exportTo."),
    entry("LAT0103", "ChangesOthersTraffic", Info,
        "A rule for a host outside changes what clients of other namespaces get.", "Limit it by exportTo."),
    entry("LAT0104", "EjectsNobody", Warning,
        "Outlier detection that can eject no host: maxEjectionPercent of so few hosts is less than one.",
        "Raise maxEjectionPercent, so that at least one host may be taken out."),
    entry("LAT0105", "EgressHostOfOthers", Warning,
        "An Egress names a host that another object of its namespace names, too: what they say of it holds together.",
        "Say in one object who may reach a host."),
    entry("LAT0201", "RetriesMultiply", Warning,
        "A caller retries, and the service that it calls retries, too: one request can become the product of both.",
        "Retry in one place, as near to the failure as can be."),
    entry("LAT0202", "TimeoutShorterThanRetries", Warning,
        "The route's timeout ends before its retries can have had their time.",
        "Raise timeout, or lower retries.attempts or retries.perTryTimeout."),
    entry("LAT0203", "DeniesEverything", Warning,
        "An ALLOW policy without rules, or with rules that nothing can meet, denies all requests to what it selects.",
        "Write rules: [{}] to allow everything, or the rules that were meant; write spec: {} alone to say that all is to be denied."),
    entry("LAT0204", "PathNeverMatches", Warning,
        "A path that requests no longer have when it is compared: normalisation has changed them first.",
        "Write the path as it is after normalisation."),
    entry("LAT0205", "SidecarHidesService", Warning,
        "A Sidecar's egress leaves out a host that a rule of its namespace routes to: its workloads do not know it.",
        "Add the host to egress.hosts."),
    entry("LAT0206", "EnvoyFilterReplaceable", Info,
        "What the EnvoyFilter does, a kind of its own does, with checks and across versions.", "See the message."),
];

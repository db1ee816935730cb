//! What definitions say beyond the types: Istio's rules for the fields of its kinds (`istio.io/api`, annotations of its protobuf
//! files), in places where the types alone would take more, and the same for our own kinds.

use serde_json::{Value, json};

use crate::object::Kind;

/// Rules in CEL.
pub(super) const VALIDATIONS: &str = "x-kubernetes-validations";

/// Kinds of which there is nothing without a spec.
pub(super) const NEEDS_SPEC: [Kind; 3] = [Kind::ServiceEntry, Kind::WorkloadEntry, Kind::WorkloadGroup];

/// A rule for a field.
pub(super) struct Rule {
    /// From the spec, as in `support::Row`.
    pub(super) path: String,
    pub(super) says: Says,
}

/// What is demanded of a field.
#[derive(Clone, Copy)]
pub(super) enum Says {
    Required(&'static [&'static str]),
    /// At most one of these fields.
    AtMostOne(&'static [&'static str]),
    /// A keyword of the schema with a number.
    Limit(&'static str, u32),
    /// A keyword of the schema with a text.
    Word(&'static str, &'static str),
    Nullable,
    /// As long as its `int32`, whatever of it is taken.
    Signed,
    /// A duration of nothing is one, too.
    AnyDuration,
    /// Items are told apart by this field.
    KeyedBy(&'static str),
    Cel(&'static str, &'static str),
}

impl Says {
    pub(super) fn add_to(self, schema: &mut Value) {
        match self {
            Self::Required(fields) => schema["required"] = json!(fields),
            Self::AtMostOne(fields) => at_most_one(fields, schema),
            Self::Limit(keyword, value) => schema[keyword] = json!(value),
            Self::Word(keyword, value) => schema[keyword] = json!(value),
            Self::Nullable => schema["nullable"] = json!(true),
            Self::Signed => {
                if let Some(fields) = schema.as_object_mut() {
                    fields.shift_remove("maximum");
                }
                schema["format"] = json!("int32");
            }
            Self::AnyDuration => {
                if let Some(fields) = schema.as_object_mut() {
                    fields.shift_remove(VALIDATIONS);
                }
            }
            Self::KeyedBy(field) => {
                schema["x-kubernetes-list-type"] = json!("map");
                schema["x-kubernetes-list-map-keys"] = json!([field]);
            }
            Self::Cel(rule, message) => {
                let rule = json!({"rule": rule, "message": message});
                match schema[VALIDATIONS].as_array_mut() {
                    Some(rules) => rules.push(rule),
                    None => schema[VALIDATIONS] = json!([rule]),
                }
            }
        }
    }
}

/// Of a schema of fields, that at most one of these may be set; a second time, of others, too.
pub(super) fn at_most_one(fields: &[&str], schema: &mut Value) {
    let each: Vec<Value> = fields.iter().map(|field| json!({"required": [field]})).collect();
    let choices: Vec<Value> = std::iter::once(json!({"not": {"anyOf": each}})).chain(each.iter().cloned()).collect();
    match schema["oneOf"].take() {
        Value::Null => schema["oneOf"] = json!(choices),
        first => {
            if let Some(fields) = schema.as_object_mut() {
                fields.shift_remove("oneOf");
            }
            schema["allOf"] = json!([{"oneOf": first}, {"oneOf": choices}]);
        }
    }
}

/// Envoy's timers have milliseconds; nothing shorter means anything.
pub(super) fn at_least_a_millisecond() -> Value {
    json!({"rule": "duration(self) >= duration('1ms')", "message": "a duration of 1ms or more is expected"})
}

/// Rules for something that several kinds have.
struct Set {
    /// Where it is, in which kinds.
    places: &'static [(Kind, &'static str)],
    /// A path from there.
    rules: &'static [(&'static str, Says)],
}

/// All rules for a kind.
pub(super) fn of(kind: Kind) -> impl Iterator<Item = Rule> {
    SETS.iter().flat_map(move |set| {
        let here = set.places.iter().filter(move |(of, _)| *of == kind);
        here.flat_map(move |(_, place)| {
            set.rules.iter().map(move |(path, says)| Rule { path: join(place, path), says: *says })
        })
    })
}

fn join(place: &str, path: &str) -> String {
    if place.is_empty() || path.is_empty() || path.starts_with('[') {
        format!("{place}{path}")
    } else {
        format!("{place}.{path}")
    }
}

/// In which version objects are kept; changing it has an API server keep both for good.
pub(super) fn stored(kind: Kind) -> &'static str {
    match kind {
        Kind::Telemetry => "v1alpha1",
        other => other.versions()[0],
    }
}

/// A column of `kubectl get`.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
}

/// The columns of a kind, beside an object's age.
pub(super) const fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::VirtualService => &[
            Column { name: "Gateways", path: ".spec.gateways", about: "Where the rules hold" },
            Column { name: "Hosts", path: ".spec.hosts", about: "Which hosts the rules are for" },
        ],
        Kind::DestinationRule => &[Column { name: "Host", path: ".spec.host", about: "Which service the rule is for" }],
        Kind::ServiceEntry => &[
            Column { name: "Hosts", path: ".spec.hosts", about: "The service's names" },
            Column { name: "Location", path: ".spec.location", about: "In the mesh, or outside" },
            Column { name: "Resolution", path: ".spec.resolution", about: "How its addresses are found" },
        ],
        Kind::WorkloadEntry => &[Column { name: "Address", path: ".spec.address", about: "Where the workload is" }],
        Kind::AuthorizationPolicy => {
            &[Column { name: "Action", path: ".spec.action", about: "What becomes of requests that a rule fits" }]
        }
        Kind::PeerAuthentication => {
            &[Column { name: "Mode", path: ".spec.mtls.mode", about: "Whether peers must prove who they are" }]
        }
        Kind::Egress => &[Column { name: "Hosts", path: ".spec.hosts", about: "Hosts outside the mesh" }],
        Kind::RateLimit => {
            &[Column { name: "Mode", path: ".spec.mode", about: "Whether requests over a limit are refused" }]
        }
        _ => &[],
    }
}

/// What a kind is for, for `kubectl explain`.
pub(super) const fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::PeerAuthentication => "Whether callers of workloads must prove who they are, by mutual TLS.",
        Kind::RequestAuthentication => "Which tokens (JWT) of requests are valid, and whose they must be.",
        Kind::AuthorizationPolicy => "Which requests and connections to workloads are allowed.",
        Kind::WorkloadEntry => "A workload that is no pod.",
        Kind::WorkloadGroup => "What workloads that are no pods have in common.",
        Kind::ServiceEntry => "A service that the cluster does not know of, in the mesh or outside.",
        Kind::Sidecar => "What the proxies of workloads take in, and what they can reach.",
        Kind::DestinationRule => "How a service is called: its subsets, load balancing, TLS, limits.",
        Kind::Gateway => "Ports, hosts and certificates at the edge of the mesh.",
        Kind::VirtualService => "Where requests and connections to hosts go.",
        Kind::ProxyConfig => "How the proxies of workloads run.",
        Kind::Telemetry => "What proxies tell of requests: access logs, metrics, traces.",
        Kind::Egress => "Hosts outside the mesh: who may call them, and how.",
        Kind::RateLimit => "How many requests workloads take.",
        _ => "",
    }
}

use Says::{AnyDuration, AtMostOne, Cel, KeyedBy, Limit, Nullable, Required, Signed, Word};

const GROUP_NAME: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const KIND_NAME: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
const HEADER_NAME: &str = "^[-_A-Za-z0-9]+$";
const IS_PORT: Says = Cel("0 < self && self <= 65535", "a port is expected, 1 to 65535");
const NO_WILDCARD: Says = Cel("!self.contains('*')", "a label's value has no wildcards here");
const MATCHES: &[&str] = &["exact", "prefix", "regex"];
const ONE_TARGET: Says = Cel(
    "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    "only one of selector, targetRef and targetRefs may be set",
);

#[rustfmt::skip]
const SETS: &[Set] = &[
    // How workloads are chosen.
    Set {
        places: &[
            (Kind::PeerAuthentication, "selector"), (Kind::RequestAuthentication, "selector"),
            (Kind::AuthorizationPolicy, "selector"), (Kind::Telemetry, "selector"), (Kind::ProxyConfig, "selector"),
            (Kind::DestinationRule, "workloadSelector"), (Kind::Egress, "from[].selector"),
            (Kind::Egress, "via.gateway.selector"), (Kind::RateLimit, "selector"),
        ],
        rules: &[
            ("matchLabels", Limit("maxProperties", 4096)),
            ("matchLabels", Cel("self.all(key, !key.contains('*'))", "a label's key has no wildcards here")),
            ("matchLabels", Cel("self.all(key, key.size() != 0)", "a label has a key")),
            ("matchLabels.*", Limit("maxLength", 63)),
            ("matchLabels.*", NO_WILDCARD),
        ],
    },
    Set {
        places: &[(Kind::ServiceEntry, "workloadSelector"), (Kind::Sidecar, "workloadSelector")],
        rules: &[
            ("labels", Limit("maxProperties", 256)),
            ("labels.*", Limit("maxLength", 63)),
            ("labels.*", NO_WILDCARD),
        ],
    },
    Set {
        places: &[(Kind::RequestAuthentication, ""), (Kind::AuthorizationPolicy, ""), (Kind::Telemetry, "")],
        rules: &[("", ONE_TARGET), ("targetRefs", Limit("maxItems", 16))],
    },
    Set {
        places: &[
            (Kind::RequestAuthentication, "targetRef"), (Kind::RequestAuthentication, "targetRefs[]"),
            (Kind::AuthorizationPolicy, "targetRef"), (Kind::AuthorizationPolicy, "targetRefs[]"),
            (Kind::Telemetry, "targetRef"), (Kind::Telemetry, "targetRefs[]"),
        ],
        rules: &[
            ("", Required(&["kind", "name"])),
            ("group", Limit("maxLength", 253)),
            ("group", Word("pattern", GROUP_NAME)),
            ("kind", Limit("minLength", 1)),
            ("kind", Limit("maxLength", 63)),
            ("kind", Word("pattern", KIND_NAME)),
            ("name", Limit("minLength", 1)),
            ("name", Limit("maxLength", 253)),
            ("namespace", Cel("self.size() == 0", "a target lives in the object's own namespace")),
        ],
    },
    // Workloads that are no pods.
    Set {
        places: &[(Kind::WorkloadEntry, ""), (Kind::WorkloadGroup, "template"), (Kind::ServiceEntry, "endpoints[]")],
        rules: &[
            ("", Cel("(has(self.address) ? self.address : '').startsWith('unix://') ? !has(self.ports) : true", "a socket has no ports")),
            ("address", Limit("maxLength", 256)),
            ("address", Cel("self.startsWith('unix://') ? (self.substring(7, 8) == '/' || self.substring(7, 8) == '@') : true", "a socket is an absolute path, or an abstract name after `@`")),
            ("address", Cel("self.startsWith('unix://') ? !self.endsWith('/') : true", "a socket is no folder")),
            ("labels", Limit("maxProperties", 256)),
            ("locality", Limit("maxLength", 2048)),
            ("network", Limit("maxLength", 2048)),
            ("ports", Limit("maxProperties", 128)),
            ("ports", Cel("self.all(key, size(key) < 63 && key.matches('^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$'))", "a port's name has letters, digits and dashes")),
            ("ports.*", IS_PORT),
            ("serviceAccount", Limit("maxLength", 253)),
        ],
    },
    Set {
        places: &[(Kind::WorkloadEntry, ""), (Kind::ServiceEntry, "endpoints[]")],
        rules: &[("", Cel("has(self.address) || has(self.network)", "an address or a network is expected"))],
    },
    Set {
        places: &[(Kind::WorkloadGroup, "")],
        rules: &[
            ("", Required(&["template"])),
            ("metadata.{labels,annotations}", Limit("maxProperties", 256)),
            ("probe", AtMostOne(&["httpGet", "tcpSocket", "exec", "grpc"])),
            ("probe.{initialDelaySeconds,timeoutSeconds,periodSeconds,successThreshold,failureThreshold}", Signed),
            ("probe.exec", Required(&["command"])),
            ("probe.exec.command[]", Limit("minLength", 1)),
            ("probe.{httpGet,tcpSocket}", Required(&["port"])),
            ("probe.{httpGet,tcpSocket,grpc}.port", IS_PORT),
            ("probe.httpGet.scheme", Cel("self in ['', 'HTTP', 'HTTPS']", "HTTP or HTTPS is expected")),
            ("probe.httpGet.httpHeaders[].name", Word("pattern", HEADER_NAME)),
        ],
    },
    Set {
        places: &[(Kind::ServiceEntry, "")],
        rules: &[
            ("", Required(&["hosts"])),
            ("", Cel("(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1", "only one of workloadSelector and endpoints may be set")),
            ("", Cel("!((has(self.addresses) ? self.addresses : []).exists(k, k.contains('/')) && !((has(self.resolution) ? self.resolution : 'NONE') in ['STATIC', 'NONE']))", "networks as addresses go with the resolutions NONE and STATIC only")),
            ("", Cel("((has(self.resolution) ? self.resolution : 'NONE') == 'NONE') ? !has(self.endpoints) : true", "the resolution NONE has no endpoints")),
            ("", Cel("((has(self.resolution) ? self.resolution : '') == 'DNS_ROUND_ROBIN') ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true", "the resolution DNS_ROUND_ROBIN has one endpoint at most")),
            ("addresses", Limit("maxItems", 256)),
            ("addresses[]", Limit("maxLength", 64)),
            ("endpoints", Limit("maxItems", 4096)),
            ("hosts", Limit("minItems", 1)),
            ("hosts", Limit("maxItems", 256)),
            ("hosts[]", Cel("self != '*'", "a service has a name; `*` is none")),
            ("ports", Limit("maxItems", 256)),
            ("ports", KeyedBy("name")),
            ("ports", Cel("self.all(l1, self.exists_one(l2, l1.number == l2.number))", "a port is there once only")),
            ("ports[]", Required(&["number", "name"])),
            ("ports[].{name,protocol}", Limit("maxLength", 256)),
            ("ports[].{number,targetPort}", IS_PORT),
        ],
    },
    // What servers show.
    Set {
        places: &[(Kind::Gateway, "servers[].tls"), (Kind::Sidecar, "ingress[].tls")],
        rules: &[
            ("{credentialNames,tlsCertificates}", Limit("minItems", 1)),
            ("{credentialNames,tlsCertificates}", Limit("maxItems", 2)),
            ("insecureSkipVerify", Nullable),
            ("", Cel("(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1", "only one of credentialNames and tlsCertificates may be set")),
            ("", Cel("(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1", "only one of credentialName and credentialNames may be set")),
            ("", Cel("(has(self.credentialName) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1", "only one of credentialName and tlsCertificates may be set")),
        ],
    },
    Set {
        places: &[(Kind::Gateway, "")],
        rules: &[
            ("servers[]", Required(&["port", "hosts"])),
            ("servers[].port", Required(&["number", "protocol", "name"])),
        ],
    },
    Set {
        places: &[(Kind::Sidecar, "")],
        rules: &[
            ("ingress[]", Required(&["port"])),
            ("egress[]", Required(&["hosts"])),
            ("{inboundConnectionPool,ingress[].connectionPool}.tcp.idleTimeout", AnyDuration),
            ("outboundTrafficPolicy.egressProxy", Required(&["host"])),
        ],
    },
    Set {
        places: &[(Kind::PeerAuthentication, "")],
        rules: &[
            ("", Cel("has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true", "portLevelMtls goes with a selector")),
            ("portLevelMtls", Limit("minProperties", 1)),
            ("portLevelMtls", Cel("self.all(key, 0 < int(key) && int(key) <= 65535)", "a port is expected, 1 to 65535")),
        ],
    },
    Set {
        places: &[(Kind::RequestAuthentication, "jwtRules")],
        rules: &[
            ("", Limit("maxItems", 4096)),
            ("[]", Cel("(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1", "only one of jwks and jwksUri may be set")),
            ("[].issuer", Limit("minLength", 1)),
            ("[].{audiences,fromCookies,fromParams,spaceDelimitedClaims}[]", Limit("minLength", 1)),
            ("[].spaceDelimitedClaims", Limit("maxItems", 64)),
            ("[].fromHeaders[]", Required(&["name"])),
            ("[].fromHeaders[].name", Limit("minLength", 1)),
            ("[].{jwksUri,jwks_uri}", Limit("minLength", 1)),
            ("[].{jwksUri,jwks_uri}", Limit("maxLength", 2048)),
            ("[].{jwksUri,jwks_uri}", Cel("url(self).getScheme() in ['http', 'https']", "a URL of http or https is expected")),
            ("[].outputClaimToHeaders[]", Required(&["header", "claim"])),
            ("[].outputClaimToHeaders[].{header,claim}", Limit("minLength", 1)),
            ("[].outputClaimToHeaders[].header", Word("pattern", HEADER_NAME)),
        ],
    },
    Set {
        places: &[(Kind::AuthorizationPolicy, "")],
        rules: &[
            ("", AtMostOne(&["provider"])),
            ("rules", Limit("maxItems", 512)),
            ("rules[].from", Limit("maxItems", 512)),
            ("rules[].when[]", Required(&["key"])),
            ("rules[].from[].source.{serviceAccounts,notServiceAccounts}", Limit("maxItems", 16)),
            ("rules[].from[].source.{serviceAccounts,notServiceAccounts}[]", Limit("maxLength", 320)),
            ("rules[].from[].source", Cel("(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true", "service accounts go without principals and namespaces")),
        ],
    },
    Set {
        places: &[(Kind::Telemetry, "")],
        rules: &[
            ("accessLogging[].disabled", Nullable),
            ("{accessLogging,metrics,tracing}[].providers[]", Required(&["name"])),
            ("{accessLogging,metrics,tracing}[].providers[].name", Limit("minLength", 1)),
            ("metrics[].overrides[].disabled", Nullable),
            ("metrics[].overrides[].match", AtMostOne(&["metric", "customMetric"])),
            ("metrics[].overrides[].match.customMetric", Limit("minLength", 1)),
            ("metrics[].overrides[].tagOverrides.*", Cel("((has(self.operation) ? self.operation : '') == 'UPSERT') ? (self.value != '') : true", "UPSERT goes with a value")),
            ("metrics[].overrides[].tagOverrides.*", Cel("((has(self.operation) ? self.operation : '') == 'REMOVE') ? !has(self.value) : true", "REMOVE goes without a value")),
            ("tracing[].{disableSpanReporting,disableContextPropagation,enableIstioTags,useRequestIdForTraceSampling,randomSamplingPercentage}", Nullable),
            ("tracing[].randomSamplingPercentage", Limit("minimum", 0)),
            ("tracing[].randomSamplingPercentage", Limit("maximum", 100)),
            ("tracing[].customTags.*.{environment,header}", Required(&["name"])),
            ("tracing[].customTags.*.{environment,header}.name", Limit("minLength", 1)),
            ("tracing[].customTags.*.{literal,formatter}", Required(&["value"])),
            ("tracing[].customTags.*.{literal,formatter}.value", Limit("minLength", 1)),
        ],
    },
    Set {
        places: &[(Kind::ProxyConfig, "")],
        rules: &[
            ("concurrency", Nullable),
            ("concurrency", Limit("minimum", 0)),
            ("environmentVariables.*", Limit("maxLength", 2048)),
        ],
    },
    Set {
        places: &[(Kind::VirtualService, "")],
        rules: &[
            ("http[].{mirrorPercent,mirror_percent,corsPolicy.allowCredentials}", Nullable),
            ("http[].retries.{retryRemoteLocalities,retryIgnorePreviousHosts}", Nullable),
            ("http[].match[].{headers,withoutHeaders,queryParams}.*", AtMostOne(MATCHES)),
            ("http[].directResponse", Required(&["status"])),
            ("http[].directResponse.body.bytes", Word("format", "byte")),
            ("http[].fault.abort", AtMostOne(&["httpStatus", "grpcStatus", "http2Error"])),
            ("http[].fault.delay", AtMostOne(&["fixedDelay", "exponentialDelay"])),
            ("http[].redirect", AtMostOne(&["port", "derivePort"])),
            ("{http,tls,tcp}[].route[]", Required(&["destination"])),
            ("http[].mirrors[]", Required(&["destination"])),
            ("{http[].route[].destination,http[].mirror,http[].mirrors[].destination,tls[].route[].destination,tcp[].route[].destination}", Required(&["host"])),
            ("tls[]", Required(&["match"])),
            ("tls[].match[]", Required(&["sniHosts"])),
        ],
    },
    Set {
        places: &[(Kind::DestinationRule, "")],
        rules: &[
            ("", Required(&["host"])),
            ("subsets[]", Required(&["name"])),
            ("{trafficPolicy,subsets[].trafficPolicy}.portLevelSettings", Limit("maxItems", 4096)),
            ("{trafficPolicy,subsets[].trafficPolicy}.tunnel", Required(&["targetHost", "targetPort"])),
            ("{trafficPolicy,subsets[].trafficPolicy}.retryBudget.budgetInterval", AnyDuration),
            ("{trafficPolicy,subsets[].trafficPolicy}.retryBudget.percent", Nullable),
            ("{trafficPolicy,subsets[].trafficPolicy}.retryBudget.percent", Limit("minimum", 0)),
            ("{trafficPolicy,subsets[].trafficPolicy}.retryBudget.percent", Limit("maximum", 100)),
        ],
    },
    // Each of a DestinationRule's traffic policies.
    Set {
        places: &[
            (Kind::DestinationRule, "trafficPolicy"), (Kind::DestinationRule, "trafficPolicy.portLevelSettings[]"),
            (Kind::DestinationRule, "subsets[].trafficPolicy"), (Kind::DestinationRule, "subsets[].trafficPolicy.portLevelSettings[]"),
        ],
        rules: &[
            ("tls.insecureSkipVerify", Nullable),
            ("connectionPool.tcp.idleTimeout", AnyDuration),
            ("loadBalancer", AtMostOne(&["simple", "consistentHash", "backendUtilization"])),
            ("loadBalancer.consistentHash", AtMostOne(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"])),
            ("loadBalancer.consistentHash", AtMostOne(&["ringHash", "maglev"])),
            ("loadBalancer.consistentHash.httpCookie", Required(&["name"])),
            ("loadBalancer.consistentHash.httpCookie.attributes[]", Required(&["name"])),
            ("loadBalancer.consistentHash.httpCookie.ttl", AnyDuration),
            ("loadBalancer.backendUtilization.{weightUpdatePeriod,weightExpirationPeriod,weightStabilizationPeriod}", AnyDuration),
            ("loadBalancer.localityLbSetting.enabled", Nullable),
            ("loadBalancer.warmup", Required(&["duration"])),
            ("loadBalancer.warmup.{aggression,minimumPercent}", Nullable),
            ("loadBalancer.warmup.{aggression,minimumPercent}", Limit("minimum", 0)),
            ("loadBalancer.warmup.minimumPercent", Limit("maximum", 100)),
            ("loadBalancer.zoneAwareLbSetting.{enabled,minClusterSize}", Nullable),
            ("loadBalancer.zoneAwareLbSetting.minClusterSize", Limit("minimum", 1)),
            ("loadBalancer.zoneAwareLbSetting.minClusterSize", Limit("maximum", u32::MAX)),
            ("outlierDetection.{consecutive5xxErrors,consecutiveGatewayErrors,consecutiveLocalOriginFailures}", Nullable),
            ("outlierDetection.outlierDetectionHttpErrorCodes[]", Limit("minimum", 100)),
            ("outlierDetection.outlierDetectionHttpErrorCodes[]", Limit("maximum", 599)),
        ],
    },
    // Our own.
    Set {
        places: &[(Kind::Egress, "")],
        rules: &[
            ("", Required(&["hosts", "ports"])),
            ("hosts", Limit("minItems", 1)),
            ("hosts[]", Limit("minLength", 1)),
            ("from", Limit("maxItems", 64)),
            ("ports", Limit("minItems", 1)),
            ("ports", Limit("maxItems", 256)),
            ("ports[]", Required(&["number"])),
            ("ports[].number", IS_PORT),
            ("tls.port", IS_PORT),
            ("via", Required(&["gateway"])),
            ("via.gateway", Required(&["service", "selector"])),
            ("via.gateway.port", IS_PORT),
        ],
    },
    Set {
        places: &[(Kind::RateLimit, "")],
        rules: &[
            ("local[]", Required(&["name", "requests"])),
            ("local[].name", Limit("minLength", 1)),
            ("local[].{requests,burst}", Limit("minimum", 1)),
            ("global", Required(&["service", "domain", "descriptors"])),
            ("global.service", Required(&["host", "port"])),
            ("global.service.port", IS_PORT),
            ("global.domain", Limit("minLength", 1)),
            ("global.descriptors[]", Required(&["entries"])),
            ("global.descriptors[].entries", Limit("minItems", 1)),
            ("global.descriptors[].entries[]", Required(&["key"])),
            ("{local,global.descriptors}[].match.{headers,withoutHeaders}.*", AtMostOne(MATCHES)),
        ],
    },
];

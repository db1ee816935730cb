//! Objects: a kind's spec with its metadata, its status and where it was written; and the list of all kinds.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::gateway_api::{self, BackendTlsPolicy, GatewayClass, GrpcRoute, HttpRoute, ListenerSet};
use crate::gateway_api::{ReferenceGrant, TcpRoute, TlsRoute, TrafficPolicy};
use crate::kubernetes::{ConfigMap, Deployment, Namespace, Pod, Secret, Service, ServiceAccount};
use crate::made_of::MadeOf;
use crate::meta::{ObjectMeta, Origin, StringMap};
use crate::networking::{
    DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use crate::policy::{Egress, RateLimit};
use crate::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::telemetry::Telemetry;
use crate::yaml::Positions;

/// What makes a type the body of a kind.
pub trait KindSpec:
    Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    const KIND: Kind;
    /// True if the fields stand beside `metadata` (a Pod's `spec` and `status`, a ServiceAccount's fields) instead of
    /// under `spec`.
    const AT_TOP: bool;
}

/// An object of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<T> {
    /// As written: `networking.istio.io/v1beta1`.
    pub api_version: String,
    pub metadata: ObjectMeta,
    pub spec: T,
    /// As a controller left it; not read here. A Pod's is part of its own type.
    pub status: Option<Box<Value>>,
    pub origin: Origin,
    /// Order of first sight, kept by whoever stores the object: smaller is older.
    pub age: u64,
    /// What it was made of, if nobody has written it.
    pub made_of: Option<Arc<MadeOf>>,
    pub(crate) positions: Option<Arc<Positions>>,
}

impl<T> Resource<T> {
    /// Empty for kinds outside namespaces.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Line and column, from 1, of a field (`spec.http[0].route[1].weight`) or of the nearest field around it;
    /// without positions, the object's own line and column 0.
    pub fn position_of(&self, field: &str) -> (u32, u32) {
        self.positions.as_ref().and_then(|positions| positions.nearest(field)).unwrap_or((self.origin.line, 0))
    }
}

impl<K: KindSpec> Resource<K> {
    /// An object made by a program, not read from a text; `source` says by what.
    pub fn new(metadata: ObjectMeta, spec: K, source: &str) -> Self {
        Self {
            api_version: K::KIND.api_version(),
            metadata,
            spec,
            status: None,
            origin: Origin::new(source, 0),
            age: 0,
            made_of: None,
            positions: None,
        }
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: K::KIND, namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// True if all but the order of first sight is the same, lines and columns among it.
    pub fn is_same_but_for_age(&self, other: &Self) -> bool {
        let Self { api_version, metadata, spec, status, origin, age: _, made_of, positions } = self;
        *api_version == other.api_version
            && *metadata == other.metadata
            && *spec == other.spec
            && *status == other.status
            && *origin == other.origin
            && *made_of == other.made_of
            && *positions == other.positions
    }

    /// The object as Kubernetes writes it; empty fields are left out.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("apiVersion".into(), Value::String(self.api_version.clone()));
        out.insert("kind".into(), Value::String(K::KIND.name().into()));
        out.insert("metadata".into(), json(&self.metadata));
        match json(&self.spec) {
            Value::Object(fields) if K::AT_TOP => out.extend(fields),
            spec => {
                out.insert("spec".into(), spec);
            }
        }
        if let Some(status) = &self.status {
            out.insert("status".into(), (**status).clone());
        }
        Value::Object(out)
    }
}

/// Our types have string keys and finite numbers only, so that nothing in them can fail to become JSON.
fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds outside namespaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectKey {
    /// `VirtualService default/reviews`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Something to do with the spec of a kind that is known only at run time.
pub(crate) trait ForSpec {
    type Output;

    fn run<K>(self) -> Self::Output
    where
        K: KindSpec,
        Object: From<Resource<K>>;
}

/// What is known of a kind.
struct Facts {
    name: &'static str,
    /// Empty for the core group.
    group: &'static str,
    /// The preferred one first; all are one schema.
    versions: &'static [&'static str],
    plural: &'static str,
    short_names: &'static [&'static str],
    namespaced: bool,
}

macro_rules! kinds {
    ($($kind:ident($spec:ty) $(as $name:literal)? { $($fact:ident: $value:expr),+ $(,)? })+) => {
        /// The kinds we read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($kind),+ }

        impl Kind {
            /// All of them, in the order in which objects that name each other are best applied.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$kind => Facts { name: name_of!($kind $($name)?), $($fact: $value),+ }),+
                }
            }
        }

        /// An object of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Object { $($kind(Arc<Resource<$spec>>)),+ }

        $(
            impl From<Resource<$spec>> for Object {
                fn from(resource: Resource<$spec>) -> Self {
                    Self::$kind(Arc::new(resource))
                }
            }
        )+

        impl Object {
            /// True if both are one object in memory, or the same in everything but the order of first sight.
            pub fn is_same_but_for_age(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(a), Self::$kind(b)) => Arc::ptr_eq(a, b) || a.is_same_but_for_age(b),)+
                    _ => false,
                }
            }
        }

        /// Does the same with an object of whatever kind.
        macro_rules! each {
            ($object:expr, $resource:ident => $body:expr) => {
                match $object { $(Object::$kind($resource) => $body),+ }
            };
        }

        impl Kind {
            /// Runs what is generic over the kind's spec.
            pub(crate) fn run<G: ForSpec>(self, generic: G) -> G::Output {
                match self { $(Self::$kind => generic.run::<$spec>()),+ }
            }
        }

        $(spec_of!($kind, $spec);)+
    };
}

/// A kind's own name, where it is not that of its variant: two groups have a `Gateway`.
macro_rules! name_of {
    ($kind:ident) => {
        stringify!($kind)
    };
    ($kind:ident $name:literal) => {
        $name
    };
}

macro_rules! spec_of {
    (Pod, $spec:ty) => { spec_of!(@ Pod, $spec, true); };
    (ServiceAccount, $spec:ty) => { spec_of!(@ ServiceAccount, $spec, true); };
    (Secret, $spec:ty) => { spec_of!(@ Secret, $spec, true); };
    (ConfigMap, $spec:ty) => { spec_of!(@ ConfigMap, $spec, true); };
    ($kind:ident, $spec:ty) => { spec_of!(@ $kind, $spec, false); };
    (@ $kind:ident, $spec:ty, $at_top:literal) => {
        impl KindSpec for $spec {
            const KIND: Kind = Kind::$kind;
            const AT_TOP: bool = $at_top;
        }
    };
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const POLICY: &str = "policy.lateen.dev";
const GATEWAY_API: &str = gateway_api::GROUP;
const V1: &[&str] = &["v1", "v1beta1"];
const V1_ALPHA3: &[&str] = &["v1", "v1beta1", "v1alpha3"];

kinds! {
    Namespace(Namespace) { group: "", versions: &["v1"], plural: "namespaces", short_names: &["ns"], namespaced: false }
    ServiceAccount(ServiceAccount) { group: "", versions: &["v1"], plural: "serviceaccounts", short_names: &["sa"], namespaced: true }
    Secret(Secret) { group: "", versions: &["v1"], plural: "secrets", short_names: &[], namespaced: true }
    ConfigMap(ConfigMap) { group: "", versions: &["v1"], plural: "configmaps", short_names: &["cm"], namespaced: true }
    Service(Service) { group: "", versions: &["v1"], plural: "services", short_names: &["svc"], namespaced: true }
    Pod(Pod) { group: "", versions: &["v1"], plural: "pods", short_names: &["po"], namespaced: true }
    Deployment(Deployment) { group: "apps", versions: &["v1"], plural: "deployments", short_names: &["deploy"], namespaced: true }
    PeerAuthentication(PeerAuthentication) { group: SECURITY, versions: V1, plural: "peerauthentications", short_names: &["pa"], namespaced: true }
    RequestAuthentication(RequestAuthentication) { group: SECURITY, versions: V1, plural: "requestauthentications", short_names: &["ra"], namespaced: true }
    AuthorizationPolicy(AuthorizationPolicy) { group: SECURITY, versions: V1, plural: "authorizationpolicies", short_names: &["ap"], namespaced: true }
    WorkloadEntry(WorkloadEntry) { group: NETWORKING, versions: V1_ALPHA3, plural: "workloadentries", short_names: &["we"], namespaced: true }
    WorkloadGroup(WorkloadGroup) { group: NETWORKING, versions: V1_ALPHA3, plural: "workloadgroups", short_names: &["wg"], namespaced: true }
    ServiceEntry(ServiceEntry) { group: NETWORKING, versions: V1_ALPHA3, plural: "serviceentries", short_names: &["se"], namespaced: true }
    Sidecar(Sidecar) { group: NETWORKING, versions: V1_ALPHA3, plural: "sidecars", short_names: &[], namespaced: true }
    DestinationRule(DestinationRule) { group: NETWORKING, versions: V1_ALPHA3, plural: "destinationrules", short_names: &["dr"], namespaced: true }
    Gateway(Gateway) { group: NETWORKING, versions: V1_ALPHA3, plural: "gateways", short_names: &["gw"], namespaced: true }
    VirtualService(VirtualService) { group: NETWORKING, versions: V1_ALPHA3, plural: "virtualservices", short_names: &["vs"], namespaced: true }
    ProxyConfig(ProxyConfig) { group: NETWORKING, versions: &["v1beta1"], plural: "proxyconfigs", short_names: &[], namespaced: true }
    Egress(Egress) { group: POLICY, versions: &["v1alpha1"], plural: "egresses", short_names: &["eg"], namespaced: true }
    RateLimit(RateLimit) { group: POLICY, versions: &["v1alpha1"], plural: "ratelimits", short_names: &["rl"], namespaced: true }
    Telemetry(Telemetry) { group: "telemetry.istio.io", versions: &["v1", "v1alpha1"], plural: "telemetries", short_names: &["telemetry"], namespaced: true }
    GatewayClass(GatewayClass) { group: GATEWAY_API, versions: V1, plural: "gatewayclasses", short_names: &["gc"], namespaced: false }
    ReferenceGrant(ReferenceGrant) { group: GATEWAY_API, versions: V1, plural: "referencegrants", short_names: &["refgrant"], namespaced: true }
    KubernetesGateway(gateway_api::Gateway) as "Gateway" { group: GATEWAY_API, versions: V1, plural: "gateways", short_names: &["gtw"], namespaced: true }
    ListenerSet(ListenerSet) { group: GATEWAY_API, versions: &["v1"], plural: "listenersets", short_names: &["lset"], namespaced: true }
    HTTPRoute(HttpRoute) { group: GATEWAY_API, versions: V1, plural: "httproutes", short_names: &[], namespaced: true }
    GRPCRoute(GrpcRoute) { group: GATEWAY_API, versions: &["v1", "v1alpha2"], plural: "grpcroutes", short_names: &[], namespaced: true }
    TLSRoute(TlsRoute) { group: GATEWAY_API, versions: &["v1", "v1alpha3", "v1alpha2"], plural: "tlsroutes", short_names: &[], namespaced: true }
    TCPRoute(TcpRoute) { group: GATEWAY_API, versions: &["v1", "v1alpha2"], plural: "tcproutes", short_names: &[], namespaced: true }
    BackendTLSPolicy(BackendTlsPolicy) { group: GATEWAY_API, versions: &["v1", "v1alpha3"], plural: "backendtlspolicies", short_names: &["btlspolicy"], namespaced: true }
    XBackendTrafficPolicy(TrafficPolicy) { group: gateway_api::EXPERIMENTAL_GROUP, versions: &["v1alpha1"], plural: "xbackendtrafficpolicies", short_names: &["xbtrafficpolicy"], namespaced: true }
}

impl Kind {
    /// `VirtualService`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// A text that no other kind has: the name, with the group where another kind of that name comes first
    /// (`Gateway.gateway.networking.k8s.io`).
    pub fn id(self) -> String {
        match self.name().parse::<Self>() {
            Ok(first) if first != self => format!("{}.{}", self.name(), self.group()),
            _ => self.name().to_owned(),
        }
    }

    /// Whether it is one of the Gateway API.
    pub fn is_gateway_api(self) -> bool {
        matches!(self.group(), gateway_api::GROUP | gateway_api::EXPERIMENTAL_GROUP)
    }

    /// `networking.istio.io`; empty for Kubernetes' core group.
    pub const fn group(self) -> &'static str {
        self.facts().group
    }

    /// The versions accepted, the preferred one first.
    pub const fn versions(self) -> &'static [&'static str] {
        self.facts().versions
    }

    /// `virtualservices`.
    pub const fn plural(self) -> &'static str {
        self.facts().plural
    }

    /// `vs`.
    pub const fn short_names(self) -> &'static [&'static str] {
        self.facts().short_names
    }

    pub const fn is_namespaced(self) -> bool {
        self.facts().namespaced
    }

    /// Group and preferred version: `networking.istio.io/v1`.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
    }

    /// Every `apiVersion` that the kind is read with, the preferred one first.
    pub fn api_versions(self) -> impl Iterator<Item = String> {
        self.versions().iter().map(move |version| match self.group() {
            "" => (*version).to_owned(),
            group => format!("{group}/{version}"),
        })
    }

    /// The kind of an object's `apiVersion` and `kind`, as they are written in it.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.name() == kind && known.group() == group && known.versions().contains(&version))
    }
}

impl FromStr for Kind {
    type Err = String;

    /// What a person types: `VirtualService`, `virtualservices`, `vs`, `virtualservices.networking.istio.io`; any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_lowercase();
        let (word, group) = lower.split_once('.').map_or((lower.as_str(), None), |(word, group)| (word, Some(group)));
        Self::ALL
            .iter()
            .copied()
            .find(|kind| {
                group.is_none_or(|group| group == kind.group())
                    && (kind.plural() == word
                        || kind.short_names().contains(&word)
                        || kind.name().to_lowercase() == word)
            })
            .ok_or_else(|| format!("`{text}` is no kind that is known here"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.id())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Object {
    pub fn kind(&self) -> Kind {
        fn kind<K: KindSpec>(_: &Resource<K>) -> Kind {
            K::KIND
        }
        each!(self, resource => kind(resource))
    }

    pub fn metadata(&self) -> &ObjectMeta {
        each!(self, resource => &resource.metadata)
    }

    /// Empty for kinds outside namespaces.
    pub fn namespace(&self) -> &str {
        &self.metadata().namespace
    }

    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    pub fn labels(&self) -> &StringMap {
        &self.metadata().labels
    }

    pub fn key(&self) -> ObjectKey {
        each!(self, resource => resource.key())
    }

    pub fn api_version(&self) -> &str {
        each!(self, resource => &resource.api_version)
    }

    pub fn origin(&self) -> &Origin {
        each!(self, resource => &resource.origin)
    }

    /// Order of first sight: smaller is older.
    pub fn age(&self) -> u64 {
        each!(self, resource => resource.age)
    }

    /// The same object with its order of first sight.
    #[must_use]
    pub fn with_age(mut self, age: u64) -> Self {
        self.set_age(age);
        self
    }

    /// Gives the object its order of first sight; an object that others share becomes one of its own.
    pub fn set_age(&mut self, age: u64) {
        each!(self, resource => Arc::make_mut(resource).age = age);
    }

    /// The same object, of which is known where it stands and not where each of its fields does: for what programs write and
    /// nobody reads line by line.
    #[must_use]
    pub fn without_positions(mut self) -> Self {
        each!(&mut self, resource => Arc::make_mut(resource).positions = None);
        self
    }

    /// The same object with another origin, for sources that know better where it was written first.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        each!(&mut self, resource => Arc::make_mut(resource).origin = origin);
        self
    }

    /// Line and column, from 1, of a field or of the nearest field around it.
    pub fn position_of(&self, field: &str) -> (u32, u32) {
        each!(self, resource => resource.position_of(field))
    }

    /// The object as Kubernetes writes it; empty fields are left out.
    pub fn to_json(&self) -> Value {
        each!(self, resource => resource.to_json())
    }

    /// The same for people to see: without the values of a Secret.
    pub fn to_shown_json(&self) -> Value {
        match self {
            Self::Secret(resource) => {
                let mut shown = (**resource).clone();
                shown.spec = shown.spec.redacted();
                // `kubectl apply` keeps a copy of the whole object here.
                shown.metadata.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                shown.to_json()
            }
            other => other.to_json(),
        }
    }

    /// True if both say the same, wherever they were written and whenever first seen.
    pub fn same_content(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.to_json() == other.to_json()
    }
}

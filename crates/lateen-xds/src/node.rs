//! Who a client says it is: the node of its first request. A hint, never a proof.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeInfo {
    pub id: String,
    /// The parts of the id, if it is a mesh proxy's.
    pub proxy: Option<ProxyId>,
    /// `--service-cluster`.
    pub cluster: String,
    /// `region/zone/sub_zone`, as far as set.
    pub locality: String,
    /// Program and version, such as `envoy 1.40.0`.
    pub user_agent: String,
    pub metadata: Struct,
}

/// The parts of a mesh proxy's node id, `<kind>~<address>~<pod>.<namespace>~<DNS domain>` (Istio).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyId {
    /// `sidecar` or `router`.
    pub kind: String,
    pub address: IpAddr,
    pub pod: String,
    pub namespace: String,
    pub domain: String,
}

impl ProxyId {
    /// Takes an id apart; nothing when it has another form.
    pub fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('~');
        let (kind, address, name, domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || kind.is_empty() {
            return None;
        }
        // A namespace has no dots, a pod may have.
        let (pod, namespace) = name.rsplit_once('.')?;
        if pod.is_empty() || namespace.is_empty() {
            return None;
        }
        Some(Self {
            kind: kind.to_owned(),
            address: address.parse().ok()?,
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            domain: domain.to_owned(),
        })
    }
}

impl NodeInfo {
    pub fn from_xds(node: Node) -> Self {
        let locality = node.locality.map(|locality| {
            let parts = [locality.region, locality.zone, locality.sub_zone];
            parts.join("/").trim_end_matches('/').to_owned()
        });
        let version = match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version,
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        Self {
            proxy: ProxyId::parse(&node.id),
            id: node.id,
            cluster: node.cluster,
            locality: locality.unwrap_or_default(),
            user_agent: format!("{} {version}", node.user_agent_name).trim().to_owned(),
            metadata: node.metadata.unwrap_or_default(),
        }
    }

    /// A metadata value that is a string, such as `NAMESPACE`.
    pub fn text(&self, key: &str) -> Option<&str> {
        text(self.metadata.fields.get(key)?)
    }

    /// The strings of a metadata value that is an object, such as `LABELS`.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        let fields = match self.metadata.fields.get(key).and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(object)) => Some(&object.fields),
            _ => None,
        };
        fields.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), text(value)?)))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value.kind.as_ref() {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_mesh_proxy_has_parts() {
        let id = ProxyId::parse("sidecar~10.244.0.7~reviews.v1-0.default~default.svc.cluster.local").expect("it has");
        assert_eq!((id.kind.as_str(), id.pod.as_str(), id.namespace.as_str()), ("sidecar", "reviews.v1-0", "default"));
        assert_eq!((id.address, id.domain.as_str()), (IpAddr::from([10, 244, 0, 7]), "default.svc.cluster.local"));
    }

    #[test]
    fn other_ids_have_none() {
        for id in ["", "envoy-1", "a~b~c", "sidecar~not-an-address~p.n~d", "sidecar~10.0.0.1~p~d", "s~10.0.0.1~p.n~d~e"]
        {
            assert_eq!(ProxyId::parse(id), None, "{id}");
        }
    }

    #[test]
    fn strings_are_read_from_the_metadata() {
        let string = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let labels = Struct { fields: [("app".to_owned(), string("x")), ("n".to_owned(), Value::default())].into() };
        let labels = Value { kind: Some(Kind::StructValue(labels)) };
        let fields = [("NAME".to_owned(), string("p")), ("LABELS".to_owned(), labels)].into();
        let node = NodeInfo { metadata: Struct { fields }, ..NodeInfo::default() };
        assert_eq!(node.text("NAME"), Some("p"));
        assert_eq!(node.text("LABELS"), None);
        assert_eq!(node.texts("LABELS").collect::<Vec<_>>(), [("app", "x")]);
        assert_eq!(node.texts("NAME").count(), 0);
    }
}

//! Which resources a resource makes a proxy ask for: a cluster its endpoints, a listener its route tables.
//!
//! Only the fields on the way to a name are declared, so decoding skips the rest. Names that do not come by ADS are not
//! named: the server that sent the owner is not the one that will be asked for them.

use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use crate::type_url;

/// Tags of `envoy.config.core.v3.ConfigSource`: `ads` and `self` both mean this stream.
#[derive(Clone, PartialEq, Message)]
struct ConfigSource {
    #[prost(message, optional, tag = "3")]
    ads: Option<Empty>,
    #[prost(message, optional, tag = "5")]
    this: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

impl ConfigSource {
    fn is_this_stream(&self) -> bool {
        self.ads.is_some() || self.this.is_some()
    }
}

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, PartialEq, Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    discovery_type: i32,
    #[prost(message, optional, tag = "3")]
    eds: Option<EdsClusterConfig>,
}

/// `Cluster.DiscoveryType.EDS`.
const EDS: i32 = 3;

#[derive(Clone, PartialEq, Message)]
struct EdsClusterConfig {
    #[prost(message, optional, tag = "1")]
    source: Option<ConfigSource>,
    #[prost(string, tag = "2")]
    service_name: String,
}

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, PartialEq, Message)]
struct Listener {
    #[prost(message, repeated, tag = "3")]
    chains: Vec<FilterChain>,
    #[prost(message, optional, tag = "25")]
    default_chain: Option<FilterChain>,
}

#[derive(Clone, PartialEq, Message)]
struct FilterChain {
    #[prost(message, repeated, tag = "3")]
    filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(message, optional, tag = "4")]
    config: Option<Any>,
}

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Clone, PartialEq, Message)]
struct HttpConnectionManager {
    #[prost(message, optional, tag = "3")]
    rds: Option<Rds>,
}

const HTTP_CONNECTION_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

#[derive(Clone, PartialEq, Message)]
struct Rds {
    #[prost(message, optional, tag = "1")]
    source: Option<ConfigSource>,
    #[prost(string, tag = "2")]
    name: String,
}

/// The type of what resources of this type name, if they name any.
pub(crate) fn referred_type(type_url: &str) -> Option<&'static str> {
    match type_url {
        type_url::CLUSTER => Some(type_url::ENDPOINT),
        type_url::LISTENER => Some(type_url::ROUTE),
        _ => None,
    }
}

/// The names that this resource makes a proxy ask for, each once; none when its bytes cannot be read, which the proxy will
/// say better.
pub(crate) fn referred_names(any: &Any) -> Vec<String> {
    let mut names = match any.type_url.as_str() {
        type_url::CLUSTER => Cluster::decode(any.value.as_slice()).ok().and_then(of_cluster).into_iter().collect(),
        type_url::LISTENER => Listener::decode(any.value.as_slice()).map(of_listener).unwrap_or_default(),
        _ => Vec::new(),
    };
    names.sort();
    names.dedup();
    names
}

fn of_cluster(cluster: Cluster) -> Option<String> {
    let eds = cluster.eds.filter(|_| cluster.discovery_type == EDS)?;
    if !eds.source.is_some_and(|source| source.is_this_stream()) {
        return None;
    }
    Some(if eds.service_name.is_empty() { cluster.name } else { eds.service_name })
}

fn of_listener(listener: Listener) -> Vec<String> {
    let chains = listener.chains.into_iter().chain(listener.default_chain);
    let configs = chains.flat_map(|chain| chain.filters).filter_map(|filter| filter.config);
    configs
        .filter(|config| config.type_url.rsplit('/').next() == Some(HTTP_CONNECTION_MANAGER))
        .filter_map(|config| HttpConnectionManager::decode(config.value.as_slice()).ok()?.rds)
        .filter(|rds| rds.source.as_ref().is_some_and(ConfigSource::is_this_stream))
        .map(|rds| rds.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::from_json;

    fn packed(type_url: &str, resource: &Value) -> Any {
        let value = match type_url {
            type_url::CLUSTER => from_json::<envoy_types::pb::envoy::config::cluster::v3::Cluster>(resource)
                .expect("valid")
                .encode_to_vec(),
            _ => from_json::<envoy_types::pb::envoy::config::listener::v3::Listener>(resource)
                .expect("valid")
                .encode_to_vec(),
        };
        Any { type_url: type_url.to_owned(), value }
    }

    #[test]
    fn a_cluster_names_its_endpoints_only_when_they_come_by_this_stream() {
        let cases = [
            (json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}), vec!["a"]),
            (
                json!({"name": "a", "type": "EDS", "eds_cluster_config": {"service_name": "b", "eds_config": {"self": {}}}}),
                vec!["b"],
            ),
            (
                json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"path_config_source": {"path": "/x"}}}}),
                vec![],
            ),
            (json!({"name": "a", "type": "STATIC", "eds_cluster_config": {"eds_config": {"ads": {}}}}), vec![]),
        ];
        for (cluster, names) in cases {
            assert_eq!(referred_names(&packed(type_url::CLUSTER, &cluster)), names, "{cluster}");
        }
    }

    #[test]
    fn a_listener_names_the_route_tables_of_all_its_chains_once() {
        let manager = |name: &str, source: Value| {
            json!({"filters": [{"name": "http", "typed_config": {
                "@type": format!("type.googleapis.com/{HTTP_CONNECTION_MANAGER}"),
                "stat_prefix": "x", "rds": {"route_config_name": name, "config_source": source}}}]})
        };
        let listener = json!({
            "name": "l",
            "filter_chains": [manager("80", json!({"ads": {}})), manager("80", json!({"ads": {}})), manager("file", json!({"path": "/x"}))],
            "default_filter_chain": manager("8080", json!({"ads": {}})),
        });
        assert_eq!(referred_names(&packed(type_url::LISTENER, &listener)), ["80", "8080"]);
    }

    #[test]
    fn bytes_that_are_no_message_name_nothing() {
        let any = Any { type_url: type_url::LISTENER.to_owned(), value: vec![0xff; 7] };
        assert!(referred_names(&any).is_empty());
    }
}

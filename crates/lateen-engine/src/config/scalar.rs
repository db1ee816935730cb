//! Reading protobuf's wrappers and packed messages.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use envoy_types::pb::envoy::config::core::v3::{ConfigSource, GrpcService, config_source::ConfigSourceSpecifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use envoy_types::pb::google::protobuf;
use prost::{Message, Name};

use super::error::At;

pub(crate) fn duration(value: Option<&protobuf::Duration>, at: &At) -> Option<Duration> {
    let value = value?;
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            at.error("a duration must not be negative");
            None
        }
    }
}

pub(crate) fn u32_or(value: Option<&protobuf::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

pub(crate) fn bool_or(value: Option<&protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// The message's short name, without the `type.googleapis.com/` in front.
pub(crate) fn type_name(any: &protobuf::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or(&any.type_url)
}

pub(crate) fn is<M: Name>(any: &protobuf::Any) -> bool {
    type_name(any) == M::full_name()
}

/// Opens a packed message whose type was checked.
pub(crate) fn open<M: Message + Default>(any: &protobuf::Any, at: &At) -> Option<M> {
    M::decode(any.value.as_slice()).map_err(|error| at.error(format!("cannot be decoded: {error}"))).ok()
}

/// What configuration for an Envoy calls the agent beside it (Istio's name). What that has, our proxy has itself.
const AGENT: &str = "sds-grpc";

/// The name of a secret, of the one discovery stream there is or of the proxy's own identity. Any other server is refused: its
/// secrets would be taken from somebody else.
pub(crate) fn secret(config: &SdsSecretConfig, at: &At) -> String {
    let source = config.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref());
    let is_agent = |service: &GrpcService| matches!(&service.target_specifier, Some(TargetSpecifier::EnvoyGrpc(target)) if target.cluster_name == AGENT);
    match source {
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            if !(api.grpc_services.len() == 1 && api.grpc_services.iter().all(is_agent)) {
                at.field("sds_config.api_config_source")
                    .error(format!("must be one gRPC service, the cluster {AGENT}"));
            }
        }
        _ => discovered(config.sds_config.as_ref(), &at.field("sds_config")),
    }
    config.name.clone()
}

/// Refuses a source of resources other than the one discovery stream there is.
pub(crate) fn discovered(source: Option<&ConfigSource>, at: &At) {
    let specifier = source.and_then(|source| source.config_source_specifier.as_ref());
    if !matches!(specifier, None | Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))) {
        at.error("must be ads or self");
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{
        AggregatedConfigSource, ApiConfigSource, PathConfigSource, grpc_service::EnvoyGrpc,
    };

    use super::*;

    fn by_grpc(cluster: &str) -> ConfigSourceSpecifier {
        let target = EnvoyGrpc { cluster_name: cluster.to_owned(), ..EnvoyGrpc::default() };
        let service =
            GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..GrpcService::default() };
        ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            grpc_services: vec![service],
            ..ApiConfigSource::default()
        })
    }

    #[test]
    fn secrets_of_other_servers_are_refused() {
        for (specifier, refused) in [
            (None, None),
            (Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})), None),
            (Some(by_grpc("sds-grpc")), None),
            (
                Some(by_grpc("spire")),
                Some("r: sds_config.api_config_source: must be one gRPC service, the cluster sds-grpc"),
            ),
            (
                Some(ConfigSourceSpecifier::PathConfigSource(PathConfigSource::default())),
                Some("r: sds_config: must be ads or self"),
            ),
        ] {
            let source = ConfigSource { config_source_specifier: specifier, ..ConfigSource::default() };
            let at = At::resource("r");
            let name = secret(&SdsSecretConfig { name: "a".to_owned(), sds_config: Some(source) }, &at);
            let found = at.finish(Some(name)).err().map(|found| found[0].to_string());
            assert_eq!(found.as_deref(), refused);
        }
    }
}

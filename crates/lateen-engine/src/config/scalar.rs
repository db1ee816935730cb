//! Reading protobuf's wrappers and packed messages.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};
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

/// Refuses a source of resources other than the one discovery stream there is.
pub(crate) fn discovered(source: Option<&ConfigSource>, at: &At) {
    let specifier = source.and_then(|source| source.config_source_specifier.as_ref());
    if !matches!(specifier, None | Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))) {
        at.error("must be ads or self");
    }
}

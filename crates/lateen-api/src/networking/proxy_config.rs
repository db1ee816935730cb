//! Istio `ProxyConfig`: settings of the proxy process itself.

use serde::{Deserialize, Serialize};

use crate::meta::StringMap;
use crate::selector::MatchLabels;

/// The spec of a `ProxyConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<MatchLabels>,
    /// Worker threads; 0 means one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub environment_variables: StringMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ProxyImage>,
}

/// Which variant of the proxy's image is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyImage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_type: String,
}

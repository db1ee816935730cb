//! Rules for `ProxyConfig`.

use super::check::Check;
use super::metadata;
use crate::networking::ProxyConfig;

pub(super) fn check(check: &mut Check<'_>, config: &ProxyConfig) {
    metadata::match_labels(check, config.selector.as_ref());
    if let Some(threads) = config.concurrency.filter(|threads| *threads < 0) {
        check.error("spec.concurrency", format!("{threads} threads: the number is negative"));
    }
    for name in config.environment_variables.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            check.error("spec.environmentVariables", format!("`{name}` is no name of a variable"));
        }
    }
    let image = config.image.as_ref().map(|image| image.image_type.as_str());
    if let Some(kind) = image.filter(|kind| !matches!(*kind, "" | "default")) {
        check.warn("spec.image.imageType", format!("`{kind}` has no effect: there is one image of the proxy"));
    }
}

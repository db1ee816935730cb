//! Rules for `PeerAuthentication`.

use super::check::Check;
use super::metadata;
use crate::security::PeerAuthentication;

pub(super) fn check(check: &mut Check<'_>, spec: &PeerAuthentication) {
    if let Some(selector) = &spec.selector
        && !selector.match_labels.is_empty()
    {
        metadata::match_labels(check, Some(selector));
    } else if !spec.port_level_mtls.is_empty() {
        let help = "ports belong to workloads; add selector.matchLabels";
        check.error_help("spec.portLevelMtls", "`portLevelMtls` needs a selector with labels", help);
    }
    if spec.port_level_mtls.contains_key(&0) {
        check.error("spec.portLevelMtls.0", "port 0 is not in the range 1 to 65535");
    }
}

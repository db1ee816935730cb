//! The message codes of the checks: Istio's names and levels, so that what users know of them stays true; one of our own
//! where Istio has none.

use lateen_api::Severity;
use lateen_api::diagnostic::code as own;

use super::{ERROR, INFO, WARNING};

/// A message code with its level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    pub(crate) name: &'static str,
    pub(crate) severity: Severity,
}

const fn code(name: &'static str, severity: Severity) -> Code {
    Code { name, severity }
}

pub(crate) const REFERENCED_RESOURCE_NOT_FOUND: Code = code("IST0101", ERROR);
pub(crate) const CONFLICTING_MESH_GATEWAY_VIRTUAL_SERVICE_HOSTS: Code = code("IST0109", ERROR);
pub(crate) const CONFLICTING_SIDECAR_WORKLOAD_SELECTORS: Code = code("IST0110", ERROR);
pub(crate) const MULTIPLE_SIDECARS_WITHOUT_WORKLOAD_SELECTORS: Code = code("IST0111", ERROR);
pub(crate) const VIRTUAL_SERVICE_DESTINATION_PORT_SELECTOR_REQUIRED: Code = code("IST0112", ERROR);
pub(crate) const NO_MATCHING_WORKLOADS_FOUND: Code = code("IST0127", WARNING);
pub(crate) const VIRTUAL_SERVICE_HOST_NOT_FOUND_IN_GATEWAY: Code = code("IST0132", WARNING);
pub(crate) const GATEWAY_DUPLICATE_CERTIFICATE: Code = code("IST0138", WARNING);
pub(crate) const CONFLICTING_GATEWAYS: Code = code("IST0145", ERROR);
pub(crate) const NEGATIVE_CONDITION_STATUS: Code = code("IST0171", WARNING);
pub(crate) const DESTINATION_RULE_SUBSET_NOT_SELECT_PODS: Code = code("IST0173", ERROR);
pub(crate) const UNKNOWN_DESTINATION_RULE_HOST: Code = code("IST0174", WARNING);

/// Ours: Istio has no code for it.
pub(crate) const LOCALITY_FAILOVER_BY_OUTLIER_DETECTION: Code = code("LAT0101", INFO);
/// A rule that counts for clients elsewhere in place of one with a subset that routes lead to.
pub(crate) const HIDES_SUBSET: Code = code("LAT0102", ERROR);
pub(crate) const CHANGES_OTHERS_TRAFFIC: Code = code("LAT0103", INFO);
pub(crate) const EJECTS_NOBODY: Code = code("LAT0104", WARNING);
pub(crate) const EGRESS_HOST_OF_OTHERS: Code = code("LAT0105", WARNING);
/// A setting that another object keeps from having any effect.
pub(crate) const INEFFECTIVE_SETTING: Code = code(own::SUSPICIOUS, WARNING);

//! The Services through which a Gateway is reached.

use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::gateway_api::Gateway;
use lateen_api::gateway_api::gateway::GatewayAddress;

use super::condition::Fault;
use crate::config::MeshConfig;
use crate::host;
use crate::inputs::Inputs;
use crate::workloads::Labels;

/// Names what is made for a Gateway, in place of `<gateway>-<class>`.
const NAME: &str = "gateway.istio.io/name-override";
/// Names its service account.
const ACCOUNT: &str = "gateway.istio.io/service-account";
/// An old way to say the type of the Service.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";

/// Pods that serve a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pods {
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Labels,
    /// Under which account they must run, where that is known.
    pub(crate) account: Option<Arc<str>>,
}

/// Whether a Deployment and a Service are made for it, or an existing Service is named.
pub fn is_managed(gateway: &Gateway) -> bool {
    match gateway.addresses.as_slice() {
        [] => true,
        [one] => !is_hostname(one),
        _ => false,
    }
}

fn is_hostname(address: &GatewayAddress) -> bool {
    address.kind.as_deref() == Some("Hostname")
}

/// The name of the Deployment and of the Service that are made for a Gateway.
pub fn managed_name(gateway: &Resource<Gateway>) -> String {
    let own = gateway.metadata.annotation(NAME).filter(|name| !name.is_empty());
    own.map_or_else(|| format!("{}-{}", gateway.name(), gateway.spec.gateway_class_name), str::to_owned)
}

/// The service account under which its pods run; none where they are somebody else's.
pub fn managed_account(gateway: &Resource<Gateway>) -> Option<String> {
    let own = gateway.metadata.annotation(ACCOUNT).filter(|name| !name.is_empty());
    let default = || format!("{}-{}", gateway.name(), gateway.spec.gateway_class_name);
    is_managed(&gateway.spec).then(|| own.map_or_else(default, str::to_owned))
}

/// The full names of its Services, and what is wrong with how it names them.
pub(super) fn hosts(gateway: &Resource<Gateway>, config: &MeshConfig) -> (Vec<String>, Option<Fault>) {
    let namespace = gateway.namespace();
    if is_managed(&gateway.spec) {
        return (vec![host::service_fqdn(&managed_name(gateway), namespace, &config.domain)], None);
    }
    let (usable, others): (Vec<_>, Vec<_>) = gateway.spec.addresses.iter().partition(|address| is_hostname(address));
    let hosts = usable.into_iter().map(|address| host::resolve(&address.value, namespace, &config.domain)).collect();
    let others: Vec<&str> = others.into_iter().map(|address| address.value.as_str()).collect();
    let fault = if !others.is_empty() {
        let message = format!("only Hostname is supported, ignoring [{}]", others.join(" "));
        Some(Fault::new("UnsupportedAddress", message))
    } else if gateway.metadata.annotations.contains_key(SERVICE_TYPE) {
        let message = format!("annotation {SERVICE_TYPE} is deprecated, use Spec.Infrastructure.Routeability");
        Some(Fault::new("DeprecatedField", message))
    } else {
        None
    };
    (hosts, fault)
}

/// The pods behind these Services, which are of the Gateway's own namespace.
pub(super) fn pods(inputs: &Inputs, config: &MeshConfig, gateway: &Resource<Gateway>, hosts: &[String]) -> Vec<Pods> {
    let own = inputs.services.iter().filter(|service| service.namespace() == gateway.namespace());
    let named = own.filter(|service| {
        hosts.contains(&host::service_fqdn(service.name(), service.namespace(), &config.domain))
            && !service.spec.selector.is_empty()
    });
    let account: Option<Arc<str>> = managed_account(gateway).map(Into::into);
    named
        .map(|service| Pods {
            namespace: service.namespace().into(),
            labels: service.spec.selector.clone(),
            account: account.clone(),
        })
        .collect()
}

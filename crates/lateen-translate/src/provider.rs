//! Services of extension providers, as far as a proxy can reach them.

use lateen_mesh::ServicePort;

use crate::names::outbound_cluster;
use crate::view::View;

/// Where a provider is.
pub(crate) struct Reached<'a> {
    pub(crate) cluster: String,
    pub(crate) host: &'a str,
}

/// None unless the service, `host` or `namespace/host`, is one that the proxy sees, with a port that fits.
pub(crate) fn reach<'a>(
    view: &View<'a>,
    service: &str,
    port: u32,
    fits: impl Fn(&ServicePort) -> bool,
) -> Option<Reached<'a>> {
    let port = u16::try_from(port).ok()?;
    let (namespace, host) =
        service.split_once('/').map_or((None, service), |(namespace, host)| (Some(namespace), host));
    let service = view.scope.service(&view.mesh.resolve_host(host, &view.mesh.config().root_namespace))?;
    if namespace.is_some_and(|namespace| namespace != &*service.namespace) || !service.port(port).is_some_and(fits) {
        return None;
    }
    Some(Reached { cluster: outbound_cluster(port, "", &service.host), host: &service.host })
}

//! What one proxy sees: its workload, its scope of the mesh, and where shared results are kept.

use std::borrow::Cow;
use std::sync::Arc;

use lateen_api::proxy_settings::ProxySettings;
use lateen_mesh::{Mesh, OutboundMode, ProxyKind, Scope, Service, Workload};

use crate::cache::Input;
use crate::names;

/// What takes the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Our proxy, or an Envoy.
    #[default]
    Envoy,
    /// gRPC itself, in a client without a proxy (node metadata `GENERATOR`: `grpc`, Istio's word).
    Grpc,
}

/// A proxy, as far as its configuration depends on it.
#[derive(Debug, Clone)]
pub struct ProxyView {
    pub workload: Arc<Workload>,
    /// What the proxy is, from its own word checked against its pod (`sidecar~…` or `router~…`).
    pub kind: ProxyKind,
    /// May not listen on ports below 1024 (node metadata `UNPRIVILEGED_POD`).
    pub unprivileged: bool,
    pub dialect: Dialect,
    /// Names of the virtual hosts that a sidecar has asked for, which asks for them one by one (node metadata `ON_DEMAND`) and
    /// has only what they lead to; none for one that has everything that it sees.
    pub demanded: Option<Arc<[Arc<str>]>>,
}

impl ProxyView {
    /// The view of a workload's own proxy. `None` when the mesh has no such workload.
    pub fn of(mesh: &Mesh, namespace: &str, name: &str) -> Option<Self> {
        let workload = mesh.workload(namespace, name)?;
        let kind = match workload.proxy {
            ProxyKind::Gateway => ProxyKind::Gateway,
            ProxyKind::None | ProxyKind::Sidecar => ProxyKind::Sidecar,
        };
        Some(Self {
            workload: Arc::clone(workload),
            kind,
            unprivileged: false,
            dialect: Dialect::Envoy,
            demanded: None,
        })
    }
}

/// A proxy's view together with the mesh it looks at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) proxy: &'a ProxyView,
    pub(crate) scope: &'a Arc<Scope>,
}

impl View<'_> {
    /// What the pod and the mesh config say of the proxy.
    pub(crate) fn settings(&self) -> Cow<'_, ProxySettings> {
        let usual = &self.mesh.config().default_proxy;
        match &self.proxy.workload.proxy_settings {
            None => Cow::Borrowed(usual),
            Some(own) => Cow::Owned(own.or(usual)),
        }
    }

    /// Input of everything that depends on [`Self::settings`], beside the mesh config.
    pub(crate) fn own_settings(&self) -> Option<Input> {
        let workload = &self.proxy.workload;
        workload.proxy_settings.as_ref().map(|_| Arc::clone(workload) as Input)
    }

    /// Whether servers are told which attempt a request is.
    pub(crate) fn tells_attempts(&self) -> bool {
        self.settings().proxy_headers.attempt_count.disabled != Some(true)
    }

    pub(crate) fn asks_for_hosts(&self) -> bool {
        self.proxy.demanded.is_some()
    }

    /// Whether the proxy's workload may call the service.
    pub(crate) fn may_call(&self, service: &Service) -> bool {
        service.access.as_ref().is_none_or(|access| access.lets(&self.proxy.workload))
    }

    /// Whether the proxy connects to the service itself.
    pub(crate) fn connects_to(&self, service: &Service) -> bool {
        service.access.as_ref().is_none_or(|access| access.connects(&self.proxy.workload))
    }

    /// The cluster for HTTP requests to unknown hosts on a port; none where there may be no such requests, or where they were
    /// sent to the proxy itself, so that nobody knows their destination.
    pub(crate) fn cluster_for_unknown_hosts(&self, port: u16) -> Option<String> {
        if self.scope.opens(port) { None } else { self.cluster_for_unknown() }
    }

    /// The cluster that takes traffic to unknown destinations; none where there may be no such traffic.
    pub(crate) fn cluster_for_unknown(&self) -> Option<String> {
        match (self.scope.outbound_mode(), self.scope.egress_proxy()) {
            (OutboundMode::RegistryOnly, _) => None,
            (OutboundMode::AllowAny, None) => Some(names::PASSTHROUGH_CLUSTER.to_owned()),
            (OutboundMode::AllowAny, Some(proxy)) => {
                Some(names::outbound_cluster(proxy.port, &proxy.subset, &proxy.host))
            }
        }
    }
}

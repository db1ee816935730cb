//! A mesh on one machine.
//!
//! `bridge` stays in the user's namespaces and lends the mesh what only they have: host ports, the network, names.
//! `node` is the first process of new namespaces: what kubelet, kube-proxy and cluster DNS are to a cluster.
//! `pod` is what one pod consists of, down to the processes that become its containers.

pub(crate) mod bridge;
pub(crate) mod channel;
pub(crate) mod excerpt;
pub(crate) mod images;
pub(crate) mod messages;
pub(crate) mod node;
pub(crate) mod paint;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod state_dir;

/// First arguments under which this program starts itself inside namespaces.
pub(crate) const NODE: &str = "__node";
pub(crate) const CONTAINER: &str = "__container";
pub(crate) const ENTER: &str = "__enter";

/// This very program, even if its file was replaced since it started.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// The domain of cluster names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";
/// The namespace of the control plane and of the ingress gateway.
pub(crate) const SYSTEM_NAMESPACE: &str = "istio-system";
/// Name of the ingress gateway's Deployment and Service.
pub(crate) const GATEWAY: &str = "istio-ingressgateway";

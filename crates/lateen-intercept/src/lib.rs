//! What makes traffic of a pod pass through its proxy: network namespaces and links, redirect rules by netlink,
//! address translation for ClusterIPs, and the DNS server of a node.
//!
//! Used by the init container (`lateen-intercept apply`) and by a mesh on one machine alike. Knows no control plane.

pub mod dns;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod rules;
pub mod service_nat;
pub mod spawn;
pub mod userns;

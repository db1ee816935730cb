//! The resolver configuration of a pod.

use std::net::Ipv4Addr;

/// `/etc/resolv.conf` as the kubelet writes it for `dnsPolicy: ClusterFirst`.
pub fn resolv_conf(server: Ipv4Addr, namespace: &str, domain: &str) -> String {
    format!("search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {server}\noptions ndots:5\n")
}

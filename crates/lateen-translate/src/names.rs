//! Names that are API: of clusters, listeners, routes and server names, as Istio gives them.

/// Cluster for connections to unknown places, by original destination.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Cluster without endpoints: whatever is sent there is refused.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// A cluster that there never is: the backends of the Gateway API that lead nowhere.
pub const UNKNOWN_SERVICE: &str = "UnknownService";
/// Cluster for inbound connections to ports that no service declares.
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";

/// The listener that receives all outbound connections (port 15001).
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener that receives all inbound connections (port 15006).
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// `outbound|<port>|<subset>|<host>`; no subset: empty.
pub fn outbound_cluster(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|<port>||`, the port being the workload's.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The server name under which a service is reached over mesh mTLS: `outbound_.<port>_.<subset>_.<host>`.
pub fn mesh_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// What an outbound cluster name says.
#[derive(Debug, PartialEq, Eq)]
pub struct OutboundCluster<'a> {
    pub port: u16,
    pub subset: &'a str,
    pub host: &'a str,
}

impl<'a> OutboundCluster<'a> {
    /// Reads `outbound|<port>|<subset>|<host>`; `None` for any other name.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        if parts.next() != Some("outbound") {
            return None;
        }
        let port = parts.next()?.parse().ok()?;
        Some(Self { port, subset: parts.next()?, host: parts.next()? })
    }

    /// Reads a server name of mesh mTLS ([`mesh_sni`]), by which clusters are called that pass that on.
    pub fn parse_sni(name: &'a str) -> Option<Self> {
        let mut parts = name.strip_prefix("outbound_.")?.splitn(3, "_.");
        let port = parts.next()?.parse().ok()?;
        Some(Self { port, subset: parts.next()?, host: parts.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbound_names_read_back() {
        let name = outbound_cluster(9080, "v1", "reviews.default.svc.cluster.local");
        assert_eq!(name, "outbound|9080|v1|reviews.default.svc.cluster.local");
        assert_eq!(
            OutboundCluster::parse(&name),
            Some(OutboundCluster { port: 9080, subset: "v1", host: "reviews.default.svc.cluster.local" })
        );
        for wrong in ["", "PassthroughCluster", "inbound|80||", "outbound|x||h", "outbound|80|h"] {
            assert_eq!(OutboundCluster::parse(wrong), None, "{wrong}");
        }
        let name = mesh_sni(9080, "", "reviews.default.svc.cluster.local");
        let read = OutboundCluster::parse_sni(&name);
        assert_eq!(read.map(|it| (it.port, it.subset, it.host)), Some((9080, "", "reviews.default.svc.cluster.local")));
        assert_eq!(OutboundCluster::parse_sni("a.test"), None);
    }
}

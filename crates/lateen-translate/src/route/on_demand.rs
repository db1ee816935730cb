//! Virtual hosts that a sidecar asks for one by one (Envoy: `vhds`): a request that none of those it has is for waits until
//! the one it needs has come. A name is `<route table>/<host>`; the virtual host of that name is for that host alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use prost::Message;
use route::route_action::ClusterSpecifier;

use crate::Named;
use crate::cache::{Cache, Input};
use crate::proto::ads;
use crate::route::outbound::{self, Draft, TableName};
use crate::route::{catch_all, table};
use crate::view::View;

/// The table of a port: its virtual hosts are asked for, so it has none of its own, not even one for unknown hosts.
pub(crate) fn empty_table(name: &str) -> Named {
    let by_name = route::Vhds { config_source: Some(ads()) };
    Named::new(name, &route::RouteConfiguration { vhds: Some(by_name), ..table(name, Vec::new()) })
}

/// The virtual hosts of these names, in their order. A host that nothing is known of has one, too: that of all unknown hosts.
pub(crate) fn by_names<'n>(view: &View<'_>, cache: &Cache, names: impl Iterator<Item = &'n str>) -> Vec<Arc<Named>> {
    let mut inputs: Vec<Input> = vec![Arc::clone(view.scope) as Input, Arc::clone(view.mesh.config()) as Input];
    if view.scope.depends_on_labels() {
        inputs.push(Arc::clone(&view.proxy.workload) as Input);
    }
    inputs.extend(view.own_settings());
    // What tables could have, found out where the cache does not know.
    let mut drafts: HashMap<u16, Vec<Draft<'_>>> = HashMap::new();
    let by_name = |name: &str| {
        let (table, host) = name.rsplit_once('/')?;
        let Some(TableName::Port(port)) = TableName::parse(table) else { return None };
        if !outbound::is_of_a_listener(view, table) {
            return None;
        }
        if let Some(known) = cache.find(KIND, name, &inputs) {
            return known.first().cloned();
        }
        let drafts = drafts.entry(port).or_insert_with(|| outbound::drafts(view, port));
        let (draft, how) = find(drafts, host);
        let made = Arc::new(virtual_host(view, name, (host, port), draft));
        // Whoever makes hosts up shall not fill the cache with them.
        let is_a_name = how == Found::ByName;
        Some(if is_a_name { cache.get(KIND, name, &inputs, || [made])[0].clone() } else { made })
    };
    names.filter_map(by_name).collect()
}

const KIND: &str = "virtual host on demand";

/// How a host comes by its virtual host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    ByName,
    ByWildcard,
}

/// The one that a whole table would take: by the name itself, else by the longest wildcard.
fn find<'d, 'a>(drafts: &'d [Draft<'a>], host: &str) -> (Option<&'d Draft<'a>>, Found) {
    let has = |draft: &&Draft<'_>| draft.domains.iter().any(|domain| domain.eq_ignore_ascii_case(host));
    if let Some(draft) = drafts.iter().find(has) {
        return (Some(draft), Found::ByName);
    }
    let host = host.to_ascii_lowercase();
    let covers = |domain: &str| {
        let suffix = domain.strip_prefix('*').map(str::to_ascii_lowercase);
        suffix.filter(|suffix| host.len() > suffix.len() && host.ends_with(suffix.as_str())).map(|suffix| suffix.len())
    };
    let length = |draft: &Draft<'_>| draft.domains.iter().filter_map(|domain| covers(domain)).max();
    let longest = drafts.iter().filter_map(|draft| Some((length(draft)?, draft))).max_by_key(|(length, _)| *length);
    (longest.map(|(_, draft)| draft), Found::ByWildcard)
}

fn virtual_host(view: &View<'_>, name: &str, (host, port): (&str, u16), draft: Option<&Draft<'_>>) -> Named {
    let whole = draft.map_or_else(
        || catch_all(view.cluster_for_unknown_hosts(port).as_deref(), view.tells_attempts()),
        |draft| draft.build(view),
    );
    Named::new(name, &route::VirtualHost { name: name.to_owned(), domains: vec![host.to_owned()], ..whole })
}

/// Names of the clusters that these virtual hosts lead to.
pub(crate) fn clusters(hosts: &[Arc<Named>]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for host in hosts {
        let host = route::VirtualHost::decode(host.pieces.concat().as_slice()).expect("it was encoded here");
        host.routes.into_iter().filter_map(|route| route.action).for_each(|action| add_clusters(action, &mut out));
    }
    out
}

fn add_clusters(action: route::route::Action, out: &mut BTreeSet<String>) {
    let route::route::Action::Route(action) = action else { return };
    match action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => drop(out.insert(name)),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            out.extend(weighted.clusters.into_iter().map(|cluster| cluster.name));
        }
        _ => {}
    }
    out.extend(action.request_mirror_policies.into_iter().map(|mirror| mirror.cluster));
}

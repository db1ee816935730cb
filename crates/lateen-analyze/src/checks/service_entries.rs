//! ServiceEntries whose traffic cannot be told from others', and those that contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Document, items, text, texts};
use crate::report::Report;
use crate::world::{NETWORKING, World};

pub(super) fn addresses(world: &World, report: &mut Report) {
    let metadata = &world.mesh_config["defaultConfig"]["proxyMetadata"];
    let is_on = |name: &str| crate::document::scalar(&metadata[name]) == "true";
    let allocated = is_on("ISTIO_META_DNS_CAPTURE")
        && (is_on("ISTIO_META_DNS_AUTO_ALLOCATE") || is_on("PILOT_ENABLE_IP_AUTOALLOCATE"));
    if allocated {
        return;
    }
    for document in world.each(NETWORKING, "ServiceEntry") {
        let has_addresses = |value| !items(value).is_empty();
        if has_addresses(&document.spec()["addresses"]) || has_addresses(&document.json["status"]["addresses"]) {
            continue;
        }
        for (index, port) in items(&document.spec()["ports"]).iter().enumerate() {
            let protocol = text(&port["protocol"]);
            if protocol.is_empty() || protocol.eq_ignore_ascii_case("TCP") {
                let message = format!(
                    "port {} is plain TCP and the entry has no addresses: it takes all traffic to that port",
                    port["number"]
                );
                report.add(document, "IST0134", &format!("spec.ports[{index}]"), message);
            }
        }
    }
}

/// Who sees a host and port: a namespace, or `*`.
type Place<'a> = (String, &'a str, u64);

pub(super) fn conflicts(world: &World, report: &mut Report) {
    let mut said: BTreeMap<Place<'_>, Vec<(String, &Document)>> = BTreeMap::new();
    for document in world.each(NETWORKING, "ServiceEntry") {
        for scope in scopes(document) {
            for host in texts(&document.spec()["hosts"]) {
                for port in items(&document.spec()["ports"]) {
                    let Some(number) = port["number"].as_u64() else { continue };
                    let place = (scope.clone(), host, number);
                    said.entry(place).or_default().push((text(&port["protocol"]).to_uppercase(), document));
                }
            }
        }
    }
    let mut told = BTreeSet::new();
    for ((scope, host, port), entries) in &said {
        let everywhere = said.get(&("*".to_owned(), *host, *port)).filter(|_| scope != "*");
        let all: Vec<&(String, &Document)> = entries.iter().chain(everywhere.into_iter().flatten()).collect();
        let protocols: BTreeSet<&str> = all.iter().map(|(protocol, _)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(_, document)| document.full_name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let protocols: Vec<&str> = protocols.into_iter().collect();
        for (_, document) in all {
            if told.insert(document.full_name()) {
                let message = format!(
                    "ServiceEntries {} say different protocols of `{host}` port {port}: {}",
                    names.join(", "),
                    protocols.join(", ")
                );
                report.add(document, "IST0177", "spec.ports", message);
            }
        }
    }
}

/// The namespaces that an object is exported to; `*` for all.
pub(super) fn scopes(document: &Document) -> BTreeSet<String> {
    let export: Vec<&str> = texts(&document.spec()["exportTo"]).collect();
    if export.is_empty() || export.contains(&"*") {
        return BTreeSet::from(["*".to_owned()]);
    }
    let own = |name: &&str| if *name == "." { document.namespace.clone() } else { (*name).to_owned() };
    export.iter().map(own).collect()
}

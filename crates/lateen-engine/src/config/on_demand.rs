//! Route tables whose virtual hosts come one by one (`RouteConfiguration.vhds`). A virtual host is named
//! `<route table>/<host>`; a table is compiled as one whenever one of its hosts has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use foldhash::HashMap;

use super::error::ConfigError;
use super::resources::refusal;
use crate::route::RouteTable;

#[derive(Debug, Default)]
pub(super) struct OnDemand(HashMap<Arc<str>, Parts>);

/// A table as it came, and its virtual hosts by their names as resources.
#[derive(Debug)]
struct Parts {
    table: RouteConfiguration,
    hosts: BTreeMap<String, VirtualHost>,
}

impl Parts {
    fn compile(&self, changed: Option<(&str, &VirtualHost)>) -> Result<RouteTable, Vec<ConfigError>> {
        let others = self.hosts.iter().filter(|(name, _)| changed.is_none_or(|(changed, _)| *name != changed));
        let hosts = others.map(|(_, host)| host).chain(changed.map(|(_, host)| host));
        let mut whole = self.table.clone();
        whole.virtual_hosts.extend(hosts.cloned());
        RouteTable::from_xds(&whole)
    }
}

impl OnDemand {
    /// Compiles a table, with the hosts that its former version has been given.
    pub(super) fn table(&mut self, table: RouteConfiguration) -> Result<RouteTable, Vec<ConfigError>> {
        if table.vhds.is_none() {
            let compiled = RouteTable::from_xds(&table)?;
            self.0.remove(table.name.as_str());
            return Ok(compiled);
        }
        let hosts = self.0.get(table.name.as_str()).map(|parts| parts.hosts.clone()).unwrap_or_default();
        let parts = Parts { table, hosts };
        let compiled = parts.compile(None)?;
        self.0.insert(Arc::clone(&compiled.name), parts);
        Ok(compiled)
    }

    pub(super) fn remove_table(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Takes a host, or its new version: the table that it belongs to, compiled.
    pub(super) fn host(&mut self, name: &str, host: VirtualHost) -> Result<RouteTable, Vec<ConfigError>> {
        let parts = name.rsplit_once('/').and_then(|(table, _)| self.0.get_mut(table));
        let parts =
            parts.ok_or_else(|| vec![refusal(name, "belongs to no route table that asks for its virtual hosts")])?;
        let blamed = |errors: Vec<ConfigError>| {
            errors.into_iter().map(|error| ConfigError { resource: name.to_owned(), ..error }).collect::<Vec<_>>()
        };
        let compiled = parts.compile(Some((name, &host))).map_err(blamed)?;
        parts.hosts.insert(name.to_owned(), host);
        Ok(compiled)
    }

    /// Takes a host away: the table that it belonged to, compiled; none if it was not there.
    pub(super) fn remove_host(&mut self, name: &str) -> Option<RouteTable> {
        let parts = name.rsplit_once('/').and_then(|(table, _)| self.0.get_mut(table))?;
        parts.hosts.remove(name)?;
        // What has compiled compiles with a host less.
        parts.compile(None).ok()
    }
}

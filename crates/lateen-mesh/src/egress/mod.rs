//! `Egress` objects: each becomes the objects of Istio's kinds that say the same, which are read among those that users write;
//! and who may reach its hosts, which Istio's kinds cannot say of sidecars.

mod access;
mod expand;

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::policy::Egress;
use lateen_api::{KindSpec, Resource};

use crate::config::MeshConfig;
use crate::inputs::{Inputs, Listed};
use crate::mesh::Id;

pub use access::Access;
pub(crate) use expand::{Parts, expand, plain_name};

/// What the Egress objects of a mesh became.
#[derive(Debug, Default)]
pub(crate) struct Expansion {
    of: Vec<(Arc<Resource<Egress>>, Arc<Parts>)>,
    /// By namespace and name of the service entries that they became.
    access: HashMap<Id, Arc<Access>>,
}

impl Expansion {
    /// Of these objects; what is the same as before is the same object.
    pub(crate) fn of(objects: &Listed<Egress>, config: &MeshConfig, before: Option<&Self>) -> Self {
        let known = |object: &Arc<Resource<Egress>>| {
            let (_, parts) = before?.of.iter().find(|(known, _)| Arc::ptr_eq(known, object))?;
            Some(Arc::clone(parts))
        };
        let of: Vec<_> = objects
            .iter()
            .map(|object| {
                let parts = known(object).unwrap_or_else(|| Arc::new(expand(object, config)));
                (Arc::clone(object), parts)
            })
            .collect();
        let access = of.iter().flat_map(|(_, parts)| {
            let id = |entry: &Arc<Resource<_>>| (Arc::from(entry.namespace()), Arc::from(entry.name()));
            parts.service_entries.iter().map(move |entry| (id(entry), Arc::clone(&parts.access)))
        });
        Self { access: access.collect(), of }
    }

    /// Who may reach the hosts of a service entry; `None`: everybody.
    pub(crate) fn access(&self, namespace: &str, entry: &str) -> Option<&Arc<Access>> {
        if self.access.is_empty() {
            return None;
        }
        self.access.get(&(Arc::from(namespace), Arc::from(entry)))
    }

    /// What is written, and what the Egress objects among it became.
    pub(crate) fn apply(&self, written: &Inputs) -> Inputs {
        let mut all = written.clone();
        if self.of.is_empty() {
            return all;
        }
        self.add(&mut all.service_entries, |parts| &parts.service_entries);
        self.add(&mut all.destination_rules, |parts| &parts.destination_rules);
        self.add(&mut all.virtual_services, |parts| &parts.virtual_services);
        self.add(&mut all.gateways, |parts| &parts.gateways);
        self.add(&mut all.authorization_policies, |parts| &parts.authorization_policies);
        all.sort();
        all
    }

    fn add<K: KindSpec>(&self, list: &mut Listed<K>, of: impl Fn(&Parts) -> &Vec<Arc<Resource<K>>>) {
        let mut made = self.of.iter().flat_map(|(_, parts)| of(parts)).cloned().peekable();
        if made.peek().is_some() {
            Arc::make_mut(list).extend(made);
        }
    }
}

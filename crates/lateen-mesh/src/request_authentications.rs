//! RequestAuthentications as they hold for one workload.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::security::RequestAuthentication;

use crate::policy::selector;
use crate::workloads::{Workload, selects};

type Object = Arc<Resource<RequestAuthentication>>;

/// All of them, by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RequestAuthentications {
    root_namespace: String,
    by_namespace: HashMap<String, Vec<Object>>,
}

impl RequestAuthentications {
    /// `objects`: oldest first.
    pub(crate) fn new(root_namespace: &str, objects: &[Object]) -> Self {
        let mut by_namespace: HashMap<String, Vec<Object>> = HashMap::new();
        for object in objects {
            by_namespace.entry(object.namespace().to_owned()).or_default().push(Arc::clone(object));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// Those of its own namespace, then those of the root namespace, which hold everywhere; a selector narrows both. All of
    /// them count together. One that is bound to something else by `targetRefs` is for the proxies of that.
    pub(crate) fn of(&self, workload: &Workload) -> Vec<Object> {
        let root = (*workload.namespace != *self.root_namespace).then_some(self.root_namespace.as_str());
        std::iter::once(&*workload.namespace)
            .chain(root)
            .filter_map(|namespace| self.by_namespace.get(namespace))
            .flatten()
            .filter(|object| object.spec.target_ref.is_none() && object.spec.target_refs.is_empty())
            .filter(|object| {
                selector(object.spec.selector.as_ref()).is_none_or(|wanted| selects(wanted, &workload.labels))
            })
            .cloned()
            .collect()
    }
}

//! RateLimits as they hold for one workload.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::policy::RateLimit;

use crate::policy::selector;
use crate::workloads::{Workload, selects};

type Object = Arc<Resource<RateLimit>>;

/// All of them, by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    root_namespace: String,
    by_namespace: HashMap<String, Vec<Object>>,
}

impl RateLimits {
    /// `objects`: oldest first.
    pub(crate) fn new(root_namespace: &str, objects: &[Object]) -> Self {
        let mut by_namespace: HashMap<String, Vec<Object>> = HashMap::new();
        for object in objects {
            by_namespace.entry(object.namespace().to_owned()).or_default().push(Arc::clone(object));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// Those of the root namespace hold everywhere, others in their namespace; a selector narrows both.
    pub(crate) fn of(&self, workload: &Workload) -> Vec<Object> {
        let own = (*workload.namespace != *self.root_namespace).then_some(&*workload.namespace);
        std::iter::once(self.root_namespace.as_str())
            .chain(own)
            .filter_map(|namespace| self.by_namespace.get(namespace))
            .flatten()
            .filter(|object| {
                selector(object.spec.selector.as_ref()).is_none_or(|wanted| selects(wanted, &workload.labels))
            })
            .cloned()
            .collect()
    }
}

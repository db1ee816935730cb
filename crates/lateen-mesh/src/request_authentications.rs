//! RequestAuthentications as they hold for one workload.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::security::RequestAuthentication;

use crate::binding::Binding;
use crate::workloads::Workload;

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

    /// Those of its own namespace, then those of the root namespace, which hold everywhere; what they are bound to narrows both.
    /// All of them count together.
    pub(crate) fn of(&self, workload: &Workload) -> Vec<Object> {
        let root = (*workload.namespace != *self.root_namespace).then_some(self.root_namespace.as_str());
        std::iter::once(&*workload.namespace)
            .chain(root)
            .filter_map(|namespace| self.by_namespace.get(namespace))
            .flatten()
            .filter(|object| {
                let RequestAuthentication { selector, target_ref, target_refs, .. } = &object.spec;
                Binding::of(selector.as_ref(), target_ref.as_ref(), target_refs).takes(object.namespace(), workload)
            })
            .cloned()
            .collect()
    }
}

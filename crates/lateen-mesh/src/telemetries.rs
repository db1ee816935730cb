//! Telemetry objects as they hold for one workload.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::telemetry::Telemetry;

use crate::policy::selector;
use crate::workloads::{Workload, selects};

type Object = Arc<Resource<Telemetry>>;

/// All of them, by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Telemetries {
    root_namespace: String,
    by_namespace: HashMap<String, Vec<Object>>,
}

impl Telemetries {
    /// `objects`: oldest first.
    pub(crate) fn new(root_namespace: &str, objects: &[Object]) -> Self {
        let mut by_namespace: HashMap<String, Vec<Object>> = HashMap::new();
        // One that is bound to something else by `targetRefs` is for the proxies of that.
        let bound = |object: &&Object| object.spec.target_ref.is_some() || !object.spec.target_refs.is_empty();
        for object in objects.iter().filter(|object| !bound(object)) {
            by_namespace.entry(object.namespace().to_owned()).or_default().push(Arc::clone(object));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// At most three, each saying more than the one before: of the root namespace and of the workload's own the oldest without
    /// a selector, then the oldest of its own whose selector takes the workload. A selector reaches into no other namespace,
    /// not from the root namespace either (Istio: `pilot/pkg/model/telemetry.go`).
    pub(crate) fn of(&self, workload: &Workload) -> Vec<Object> {
        let in_namespace = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let wide = |namespace| in_namespace(namespace).find(|object| selector(object.spec.selector.as_ref()).is_none());
        let own = (*workload.namespace != *self.root_namespace).then_some(&*workload.namespace);
        let selected = in_namespace(&workload.namespace).find(|object| {
            selector(object.spec.selector.as_ref()).is_some_and(|wanted| selects(wanted, &workload.labels))
        });
        std::iter::once(self.root_namespace.as_str()).chain(own).filter_map(wide).chain(selected).cloned().collect()
    }
}

//! Telemetry objects as they hold for one workload.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::telemetry::Telemetry;

use crate::binding::Binding;
use crate::workloads::Workload;

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
        for object in objects {
            by_namespace.entry(object.namespace().to_owned()).or_default().push(Arc::clone(object));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// At most three, each saying more than the one before: of the root namespace and of the workload's own the oldest that is
    /// for everybody, then the oldest of its own that is bound to the workload. A selector reaches into no other namespace,
    /// not from the root namespace either (Istio: `pilot/pkg/model/telemetry.go`).
    pub(crate) fn of(&self, workload: &Workload) -> Vec<Object> {
        let in_namespace = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let wide = |namespace| in_namespace(namespace).find(|object| binding(object).is_everybody());
        let own = (*workload.namespace != *self.root_namespace).then_some(&*workload.namespace);
        let bound = |object: &&Object| {
            let binding = binding(object);
            !binding.is_everybody() && binding.takes(object.namespace(), workload)
        };
        let bound = in_namespace(&workload.namespace).find(bound);
        std::iter::once(self.root_namespace.as_str()).chain(own).filter_map(wide).chain(bound).cloned().collect()
    }
}

fn binding(object: &Resource<Telemetry>) -> Binding<'_> {
    let Telemetry { selector, target_ref, target_refs, .. } = &object.spec;
    Binding::of(selector.as_ref(), target_ref.as_ref(), target_refs)
}

//! The next mesh when nothing but pods has changed: what they touch is made anew, and everything else is shared.
//!
//! Pods come, go and become ready all the time; rules are written now and then. So this costs what the change touches,
//! however big the mesh, and gives what [`Mesh::build`] would give for all objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::kubernetes::Pod;

use crate::build::{looks_the_same, read_pod};
use crate::mesh::{Member, Mesh, Standing};
use crate::services::Service;
use crate::workloads::{Labels, selects};

/// A pod by namespace and name, as it is now; nothing when it is gone.
pub(crate) type PodChange<'a> = (&'a str, &'a str, Option<&'a Arc<Resource<Pod>>>);

impl Mesh {
    /// The mesh after these changes; nothing when they ask for more than this can do: a namespace of which nobody has
    /// looked at the mesh yet.
    pub(crate) fn after_pods(&self, changes: &[PodChange<'_>]) -> Option<Self> {
        let mut next = self.next();
        let mut touched: BTreeMap<&str, Vec<Labels>> = BTreeMap::new();
        for (namespace, name, pod) in changes {
            let labels = next.put_pod(namespace, name, *pod)?;
            touched.entry(*namespace).or_default().extend(labels);
        }
        for (namespace, labels) in touched {
            let services: Vec<Arc<Service>> =
                self.frame.services.with_endpoints(namespace).filter(|it| is_behind(it, &labels)).cloned().collect();
            next.find_endpoints_of(&services);
        }
        Some(next)
    }

    /// The next generation of the same.
    pub(crate) fn next(&self) -> Self {
        Self {
            generation: self.generation + 1,
            frame: Arc::clone(&self.frame),
            workloads: self.workloads.clone(),
            endpoints: self.endpoints.clone(),
            standing: Arc::clone(&self.standing),
            no_endpoints: Arc::clone(&self.no_endpoints),
        }
    }

    pub(crate) fn member(&self, namespace: &str, name: &str) -> Option<&Member> {
        self.workloads.get(namespace)?.get(name)
    }

    /// Takes a pod in, or out; gives the labels of what is there no more and of what is new.
    fn put_pod(&mut self, namespace: &str, name: &str, pod: Option<&Arc<Resource<Pod>>>) -> Option<Vec<Labels>> {
        let before = self.member(namespace, name).cloned();
        let entry = || {
            let workload = self.frame.entries.get(&(namespace.into(), name.into()))?;
            Some(Member { workload: Arc::clone(workload), pod: None })
        };
        let after = pod.and_then(|pod| read_pod(pod, before.as_ref())).or_else(entry);
        if before.is_none() && after.is_none() {
            return Some(Vec::new());
        }
        // A namespace without workloads has no scopes yet, and one that loses its last loses them.
        let own = Arc::make_mut(self.workloads.get_mut(namespace)?);
        match &after {
            Some(after) => drop(own.insert(Arc::clone(&after.workload.name), after.clone())),
            None => drop(own.remove(name)),
        }
        if own.is_empty() {
            return None;
        }
        let is_same = match (&before, &after) {
            (Some(before), Some(after)) => Arc::ptr_eq(&before.workload, &after.workload),
            _ => false,
        };
        let both = before.iter().chain(&after).map(|member| member.workload.labels.clone());
        Some(if is_same { Vec::new() } else { both.collect() })
    }

    fn find_endpoints_of(&mut self, services: &[Arc<Service>]) {
        for service in services {
            let Some(own) = self.endpoints.get(&service.namespace) else { continue };
            let known = own.get(&service.host).cloned();
            let found = self.frame.candidates(&self.workloads).endpoints_after(service, known.as_ref());
            if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &found)) {
                continue;
            }
            if !known.is_some_and(|known| looks_the_same(service, &known, &found)) {
                self.standing = Arc::new(Standing::default());
            }
            if let Some(own) = self.endpoints.get_mut(&service.namespace) {
                Arc::make_mut(own).insert(Arc::clone(&service.host), found);
            }
        }
    }
}

fn is_behind(service: &Service, labels: &[Labels]) -> bool {
    service.selector.as_ref().is_some_and(|selector| labels.iter().any(|labels| selects(selector, labels)))
}

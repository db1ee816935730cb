//! Who may reach the hosts of an Egress.

use std::sync::Arc;

use lateen_api::policy::Egress;
use lateen_api::policy::egress::Caller as Written;

use crate::workloads::{Labels, Workload, selects};

/// Whom the sidecars let call a service outside the mesh, and who connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Any of these.
    callers: Vec<Caller>,
    /// Namespace and labels of the gateway through which all of it goes.
    gateway: Option<(Arc<str>, Labels)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Caller {
    Anybody,
    Namespace(String),
    Account {
        namespace: String,
        name: String,
    },
    /// `None`: of every namespace.
    Labelled {
        namespace: Option<String>,
        labels: Labels,
    },
}

impl Access {
    /// `namespace`: of the object; `is_for_all`: it is for the workloads of the whole mesh, not for those of its namespace.
    pub(super) fn of(spec: &Egress, namespace: &str, is_for_all: bool, gateway: Option<(Arc<str>, Labels)>) -> Self {
        let own = || if is_for_all { Caller::Anybody } else { Caller::Namespace(namespace.to_owned()) };
        let read = |written: &Written| -> Vec<Caller> {
            let account = |text: &String| {
                let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
                Caller::Account { namespace: namespace.to_owned(), name: name.to_owned() }
            };
            let labelled = |labels: &Labels| Caller::Labelled {
                namespace: (!is_for_all).then(|| namespace.to_owned()),
                labels: labels.clone(),
            };
            (written.namespaces.iter().cloned().map(Caller::Namespace))
                .chain(written.service_accounts.iter().map(account))
                .chain(written.selector.iter().map(|selector| labelled(&selector.match_labels)))
                .collect()
        };
        let callers = if spec.from.is_empty() { vec![own()] } else { spec.from.iter().flat_map(read).collect() };
        Self { callers, gateway }
    }

    /// Of two objects for one host: who either lets, by the gateway of the first.
    pub(crate) fn or(&self, other: &Self) -> Self {
        let callers = self.callers.iter().chain(&other.callers).cloned().collect();
        Self { callers, gateway: self.gateway.clone().or_else(|| other.gateway.clone()) }
    }

    /// Whether the workload may call.
    pub fn lets(&self, workload: &Workload) -> bool {
        self.callers.iter().any(|caller| match caller {
            Caller::Anybody => true,
            Caller::Namespace(namespace) => *workload.namespace == **namespace,
            Caller::Account { namespace, name } => {
                *workload.namespace == **namespace && *workload.service_account == **name
            }
            Caller::Labelled { namespace, labels } => {
                namespace.as_ref().is_none_or(|namespace| *workload.namespace == **namespace)
                    && selects(labels, &workload.labels)
            }
        })
    }

    /// Whether the workload's proxy connects to the hosts: the gateway's, where there is one, else that of who may call.
    pub fn connects(&self, workload: &Workload) -> bool {
        match &self.gateway {
            None => self.lets(workload),
            Some((namespace, labels)) => workload.namespace == *namespace && selects(labels, &workload.labels),
        }
    }

    /// Whom a gateway turns away, which knows callers by identity: all but these namespaces and `namespace/account`s. `None`:
    /// nobody.
    pub(super) fn identities(&self) -> Option<(Vec<String>, Vec<String>)> {
        let (mut namespaces, mut accounts) = (Vec::new(), Vec::new());
        for caller in &self.callers {
            match caller {
                Caller::Anybody => return None,
                Caller::Namespace(namespace) => namespaces.push(namespace.clone()),
                Caller::Account { namespace, name } => accounts.push(format!("{namespace}/{name}")),
                // Validation keeps labels away from gateways.
                Caller::Labelled { .. } => {}
            }
        }
        Some((namespaces, accounts))
    }
}

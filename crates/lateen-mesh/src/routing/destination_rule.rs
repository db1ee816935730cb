//! DestinationRules: merged where several speak of the same host, looked up by client namespace, service namespace and
//! root namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::networking::DestinationRule as Spec;
use lateen_api::networking::destination_rule::{BALANCER, PEAK_EWMA};
use lateen_api::networking::destination_rule::{ClientTls, ConsistentHash, LoadBalancer, Subset, TrafficPolicy};
use lateen_api::{Kind, Resource};

use crate::config::MeshConfig;
use crate::host;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::visibility::ExportTo;
use crate::workloads::{Labels, selects};

/// One rule, or several with the same host, `exportTo` and selector in one.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// Full name, lower case, possibly a wildcard.
    pub host: String,
    pub namespace: Arc<str>,
    pub traffic_policy: Option<TrafficPolicy>,
    pub subsets: Vec<Subset>,
    pub export_to: ExportTo,
    /// Clients for which it holds, in its own namespace; `None`: all.
    pub selector: Option<Labels>,
    /// Endpoints that are expected to answer sooner are preferred, in place of least request; ours, by annotation.
    pub peak_ewma: bool,
    /// The objects it was made of, oldest first.
    pub origins: Vec<Origin>,
}

impl DestinationRule {
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// What holds for one port of the service as a whole.
    pub fn policy(&self, port: u16) -> TrafficPolicy {
        self.traffic_policy.as_ref().map(|policy| for_port(policy, port).0).unwrap_or_default()
    }

    /// What holds for one port of a subset: its own blocks replace those of the rule.
    pub fn subset_policy(&self, subset: &Subset, port: u16) -> TrafficPolicy {
        let base = self.policy(port);
        match &subset.traffic_policy {
            None => base,
            Some(policy) => {
                let (own, of_port) = for_port(policy, port);
                override_with(base, own, of_port)
            }
        }
    }

    /// The load balancers of all its policies.
    pub(crate) fn load_balancers(&self) -> impl Iterator<Item = &LoadBalancer> {
        let subsets = self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        self.traffic_policy.iter().chain(subsets).flat_map(|policy| {
            let of_ports = policy.port_level_settings.iter().filter_map(|settings| settings.load_balancer.as_ref());
            policy.load_balancer.iter().chain(of_ports)
        })
    }

    /// Whether some of its policies have proxies keep to their zones.
    pub(crate) fn keeps_to_zones(&self) -> bool {
        let setting = |balancer: &LoadBalancer| balancer.zone_aware_lb_setting.clone();
        self.load_balancers().filter_map(setting).any(|setting| setting.enabled != Some(false))
    }

    /// The TLS settings of all its policies that name a Secret.
    pub fn credentials(&self) -> impl Iterator<Item = &ClientTls> {
        let subsets = self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        let all = self.traffic_policy.iter().chain(subsets).flat_map(|policy| {
            let of_ports = policy.port_level_settings.iter().filter_map(|settings| settings.tls.as_ref());
            policy.tls.iter().chain(of_ports)
        });
        all.filter(|tls| tls.credential().is_some())
    }

    /// The hash that picks the endpoint for a route. `port`: the port that the route names, if it names one.
    ///
    /// Subset's port, subset, port, rule: the first of them that has one.
    pub fn consistent_hash(&self, subset: &str, port: Option<u16>) -> Option<&ConsistentHash> {
        let own = self.subset(subset).and_then(|subset| subset.traffic_policy.as_ref());
        let rule = self.traffic_policy.as_ref();
        port_hash(own, port).or_else(|| hash(own)).or_else(|| port_hash(rule, port)).or_else(|| hash(rule))
    }
}

fn hash(policy: Option<&TrafficPolicy>) -> Option<&ConsistentHash> {
    policy?.load_balancer.as_ref()?.consistent_hash.as_ref()
}

fn port_hash(policy: Option<&TrafficPolicy>, port: Option<u16>) -> Option<&ConsistentHash> {
    let settings =
        policy?.port_level_settings.iter().find(|settings| Some(settings.port.number) == port.map(u32::from))?;
    settings.load_balancer.as_ref()?.consistent_hash.as_ref()
}

/// The policy as it is for a port, and whether it comes from `portLevelSettings`: these replace the whole policy, so
/// that blocks left out go back to their defaults.
fn for_port(policy: &TrafficPolicy, port: u16) -> (TrafficPolicy, bool) {
    match policy.port_level_settings.iter().find(|settings| settings.port.number == u32::from(port)) {
        Some(settings) => {
            let policy = TrafficPolicy {
                load_balancer: settings.load_balancer.clone(),
                connection_pool: settings.connection_pool.clone(),
                outlier_detection: settings.outlier_detection.clone(),
                tls: settings.tls.clone(),
                ..TrafficPolicy::default()
            };
            (policy, true)
        }
        None => (TrafficPolicy { port_level_settings: Vec::new(), ..policy.clone() }, false),
    }
}

/// The blocks of `own` over those of `base`; `reset`: the four that a port setting has are taken even when unset.
fn override_with(base: TrafficPolicy, own: TrafficPolicy, reset: bool) -> TrafficPolicy {
    fn pick<T>(base: Option<T>, own: Option<T>, reset: bool) -> Option<T> {
        if reset { own } else { own.or(base) }
    }
    TrafficPolicy {
        load_balancer: pick(base.load_balancer, own.load_balancer, reset),
        connection_pool: pick(base.connection_pool, own.connection_pool, reset),
        outlier_detection: pick(base.outlier_detection, own.outlier_detection, reset),
        tls: pick(base.tls, own.tls, reset),
        tunnel: own.tunnel.or(base.tunnel),
        proxy_protocol: own.proxy_protocol.or(base.proxy_protocol),
        retry_budget: own.retry_budget.or(base.retry_budget),
        ..TrafficPolicy::default()
    }
}

/// All rules by namespace, merged.
#[derive(Debug, Default)]
pub(crate) struct DestinationRules {
    root_namespace: String,
    by_namespace: HashMap<Arc<str>, Vec<Arc<DestinationRule>>>,
}

impl DestinationRules {
    pub(crate) fn new(resources: &[Arc<Resource<Spec>>], config: &MeshConfig) -> Self {
        let mut sorted: Vec<_> = resources.iter().collect();
        sorted.sort_by_cached_key(|resource| Age::new(resource.age, resource.name(), resource.namespace()));
        let mut by_namespace: BTreeMap<Arc<str>, Vec<DestinationRule>> = BTreeMap::new();
        for resource in sorted {
            let rule = read(resource, config);
            let list = by_namespace.entry(Arc::clone(&rule.namespace)).or_default();
            match list.iter_mut().find(|present| is_same(present, &rule)) {
                Some(present) => merge(present, rule),
                None => list.push(rule),
            }
        }
        Self {
            root_namespace: config.root_namespace.clone(),
            by_namespace: by_namespace
                .into_iter()
                .map(|(namespace, rules)| (namespace, rules.into_iter().map(Arc::new).collect()))
                .collect(),
        }
    }

    /// Takes over rules of an earlier mesh that have not changed.
    pub(crate) fn share_with(&mut self, previous: &Self) {
        for (namespace, rules) in &mut self.by_namespace {
            let Some(before) = previous.by_namespace.get(namespace) else { continue };
            for rule in rules {
                if let Some(same) = before.iter().find(|other| *other == rule) {
                    *rule = Arc::clone(same);
                }
            }
        }
    }

    /// The hosts, possibly wildcards, of rules that are here and not there, or there and not here.
    pub(crate) fn differing_hosts(&self, other: &Self) -> BTreeSet<String> {
        let lacks = |rules: &Self, rule: &Arc<DestinationRule>| {
            let own = rules.by_namespace.get(&rule.namespace);
            own.is_none_or(|own| !own.iter().any(|known| Arc::ptr_eq(known, rule)))
        };
        let here = self.iter().filter(|rule| lacks(other, rule));
        let there = other.iter().filter(|rule| lacks(self, rule));
        here.chain(there).map(|rule| rule.host.clone()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.by_namespace.values().flatten()
    }

    /// The rules for a host as a client namespace sees them: client's namespace, service's, root. The search ends at
    /// the first namespace with any match; there, the most specific host counts. Clients of the root namespace skip
    /// the first step except for rules private to it.
    pub(crate) fn lookup(&self, client: &str, service_namespace: &str, service: &str) -> Vec<Arc<DestinationRule>> {
        let in_root = client == self.root_namespace;
        let local = self.most_specific(client, service, |rule| !in_root || rule.export_to.is_private());
        if !local.is_empty() {
            return local;
        }
        for namespace in [service_namespace, &self.root_namespace] {
            let exported = self.most_specific(namespace, service, |rule| {
                !rule.export_to.is_private() && rule.export_to.reaches(namespace, client)
            });
            if !exported.is_empty() {
                return exported;
            }
        }
        Vec::new()
    }

    fn most_specific(
        &self,
        namespace: &str,
        service: &str,
        visible: impl Fn(&DestinationRule) -> bool,
    ) -> Vec<Arc<DestinationRule>> {
        let candidates: Vec<&Arc<DestinationRule>> = self
            .by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|rule| host::is_subset_of(service, &rule.host) && visible(rule))
            .collect();
        let Some(best) = candidates.iter().map(|rule| rule.host.as_str()).min_by(|a, b| host::by_specificity(a, b))
        else {
            return Vec::new();
        };
        candidates.into_iter().filter(|rule| rule.host == best).cloned().collect()
    }
}

/// Of the rules found for a host, the one for a client: one that selects it, in its own namespace, beats one for all.
pub(crate) fn choose<'a>(
    rules: &'a [Arc<DestinationRule>],
    namespace: &str,
    labels: &Labels,
) -> Option<&'a Arc<DestinationRule>> {
    let selecting = rules.iter().find(|rule| {
        *rule.namespace == *namespace && rule.selector.as_ref().is_some_and(|selector| selects(selector, labels))
    });
    selecting.or_else(|| rules.iter().rfind(|rule| rule.selector.is_none()))
}

fn read(resource: &Resource<Spec>, config: &MeshConfig) -> DestinationRule {
    let spec = &resource.spec;
    DestinationRule {
        host: host::resolve(&spec.host, resource.namespace(), &config.domain),
        namespace: resource.namespace().into(),
        traffic_policy: spec.traffic_policy.clone().map(|policy| expecting_its_name(resource, policy)),
        subsets: spec.subsets.clone(),
        export_to: ExportTo::parse(&spec.export_to, &config.default_destination_rule_export_to),
        selector: spec
            .workload_selector
            .as_ref()
            .map(|selector| selector.match_labels.clone())
            .filter(|labels| !labels.is_empty()),
        peak_ewma: resource.metadata.annotations.get(BALANCER).is_some_and(|balancer| balancer == PEAK_EWMA),
        origins: vec![Origin::of(resource)],
    }
}

/// A `BackendTLSPolicy` has the server's certificate be for its `hostname`, unless it lists other names. A DestinationRule,
/// which is what it was made into, says no such thing by an SNI.
fn expecting_its_name(resource: &Resource<Spec>, mut policy: TrafficPolicy) -> TrafficPolicy {
    if resource.made_of.is_some() && Origin::of(resource).kind.is_gateway_api() {
        let of_ports = policy.port_level_settings.iter_mut().filter_map(|settings| settings.tls.as_mut());
        for tls in policy.tls.iter_mut().chain(of_ports).filter(|tls| tls.subject_alt_names.is_empty()) {
            tls.subject_alt_names.push(tls.sni.clone());
        }
    }
    policy
}

/// Rules that become one: same host, same clients, same selector.
fn is_same(a: &DestinationRule, b: &DestinationRule) -> bool {
    a.host == b.host && a.export_to == b.export_to && a.selector == b.selector
}

/// Subsets are put together (the older keeps a name), the first policy stays.
fn merge(into: &mut DestinationRule, rule: DestinationRule) {
    for subset in rule.subsets {
        if into.subset(&subset.name).is_none() {
            into.subsets.push(subset);
        }
    }
    match &mut into.traffic_policy {
        None => into.traffic_policy = rule.traffic_policy,
        // What a `BackendTLSPolicy` asks for is not lost to a rule that does not speak of TLS at all.
        Some(policy)
            if policy.tls.is_none() && rule.origins.iter().any(|origin| origin.kind == Kind::BackendTLSPolicy) =>
        {
            policy.tls = rule.traffic_policy.and_then(|policy| policy.tls);
        }
        Some(_) => {}
    }
    into.peak_ewma |= rule.peak_ewma;
    into.origins.extend(rule.origins);
}

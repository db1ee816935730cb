//! What of the objects that there are is in force: all, except where the last good version stays.
//!
//! Objects are written one after the other, and a set of them is whole only after the last: a VirtualService may come
//! before the DestinationRule whose subsets it names, and the rule may go first. Istio answers requests in between with
//! 503 (istio/istio#8420). Here, what leads nowhere is not taken over:
//!
//! - A VirtualService that is new or changed, and refers to something that does not exist, waits. Until then the version
//!   before it stays in force, if all that refers to is there.
//! - A subset that is gone stays for as long as a VirtualService in force leads to it.
//! - What a PeerAuthentication asks of clients and servers is in force step by step ([`crate::handover`]).
//!
//! Nothing of this is remembered beyond the process: a control plane that starts takes all objects as they are, and a
//! route of theirs that leads nowhere answers 503, as Istio has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::diagnostic::Subject;
use lateen_api::networking::{DestinationRule, VirtualService};
use lateen_api::{Diagnostic, Kind, Object, ObjectKey, Resource};

use crate::analyze::codes::REFERENCED_RESOURCE_NOT_FOUND;
use crate::analyze::{analyze, missing};
use crate::build::Pods;
use crate::config::MeshConfig;
use crate::host;
use crate::inputs::{Inputs, Listed};
use crate::mesh::Mesh;

type Rule = Arc<Resource<DestinationRule>>;
type Routes = Arc<Resource<VirtualService>>;

/// The mesh in force.
#[derive(Debug)]
pub struct InForce {
    pub mesh: Mesh,
    /// The mesh of the objects as they were written, where that is another.
    wanted: Option<Mesh>,
    decided: Arc<Decided>,
}

/// What was decided about objects; pods have no part in it.
#[derive(Debug)]
struct Decided {
    routes: BTreeMap<ObjectKey, Routes>,
    rules: Listed<DestinationRule>,
    /// What became of objects that refer to something missing, for people.
    words: BTreeMap<Subject, &'static str>,
    /// Those of them that are not in force as they are written.
    aside: BTreeSet<ObjectKey>,
}

/// How an object changed: its name, and what it is now unless it is gone.
pub type ObjectChange<'a> = (&'a ObjectKey, Option<&'a Object>);

/// What becomes of a VirtualService that refers to something missing.
enum Fate {
    /// It is in force.
    Taken,
    /// It is in force, and so are subsets that are gone.
    TakenWithSubsets,
    /// This version, from before, is in force.
    Held(Routes),
    /// There is no version to hold on to.
    Waits,
}

impl Fate {
    fn words(&self) -> &'static str {
        match self {
            Self::Taken => "",
            Self::TakenWithSubsets => "; the subset stays in force as it was",
            Self::Held(_) => "; the last good version stays in force",
            Self::Waits => "; until there is, this VirtualService is not in force",
        }
    }
}

impl InForce {
    /// What is in force of `objects` after `before`.
    pub fn new<'a>(
        objects: impl IntoIterator<Item = &'a Object>,
        config: &Arc<MeshConfig>,
        before: Option<&Self>,
    ) -> Self {
        let mut inputs = Inputs::new(objects);
        let pods = std::mem::take(&mut inputs.pods);
        Self::decide(inputs, Pods::Are(&pods), config, before)
    }

    /// What is in force after a few changes, for what they cost and not for what all objects do. Nothing when that cannot be
    /// said without all objects: when the first workload of a namespace has come, or the last one gone.
    pub fn after<'a>(&self, changes: impl IntoIterator<Item = ObjectChange<'a>>) -> Option<Self> {
        let (mut pods, mut others) = (Vec::new(), Vec::new());
        for (key, object) in changes {
            match object {
                _ if !Inputs::reads(key.kind) => {}
                Some(Object::Pod(pod)) => pods.push((&*key.namespace, &*key.name, Some(pod))),
                None if key.kind == Kind::Pod => pods.push((&*key.namespace, &*key.name, None)),
                _ => others.push((key, object)),
            }
        }
        let wanted = match &self.wanted {
            Some(wanted) => Some(wanted.after_pods(&pods)?),
            None => None,
        };
        let mut after = Self { mesh: self.mesh.after_pods(&pods)?, wanted, decided: Arc::clone(&self.decided) };
        if others.is_empty() {
            return Some(after);
        }
        // It is one step, whatever is done on the way.
        after.mesh.generation = self.mesh.generation;
        let mut inputs = after.written().clone();
        others.into_iter().for_each(|(key, object)| inputs.change(key, object));
        let config = Arc::clone(after.mesh.config());
        Some(Self::decide(inputs, Pods::AsBefore, &config, Some(&after)))
    }

    /// The objects as they were written, but for pods.
    fn written(&self) -> &Inputs {
        &self.wanted.as_ref().unwrap_or(&self.mesh).frame.inputs
    }

    fn decide(mut inputs: Inputs, pods: Pods<'_>, config: &Arc<MeshConfig>, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            inputs.share_with(before.written());
        }
        let previous = before.map(|before| &before.mesh);
        let wanted = Mesh::of_inputs(inputs.clone(), pods, config, previous);
        let mut plan = Plan { inputs: &inputs, wanted: &wanted, before, fates: BTreeMap::new(), rules: Vec::new() };
        plan.decide();
        let Plan { fates, rules, .. } = plan;
        let words = fates.iter().map(|(key, fate)| (key.into(), fate.words())).collect();
        let is_aside = |fate: &Fate| matches!(fate, Fate::Held(_) | Fate::Waits);
        let aside = fates.iter().filter(|(_, fate)| is_aside(fate)).map(|(key, _)| key.clone()).collect();
        let decided = |inputs: &Inputs| {
            let rules = Arc::clone(&inputs.destination_rules);
            Arc::new(Decided { routes: by_key(&inputs.virtual_services), rules, words, aside })
        };
        let after = |mesh: Mesh| match previous {
            Some(previous) => mesh.handing_over_from(previous),
            None => mesh,
        };
        if rules.is_empty() && fates.values().all(|fate| matches!(fate, Fate::Taken)) {
            return Self { mesh: after(wanted), wanted: None, decided: decided(&inputs) };
        }
        let settled = settle(&inputs, &fates, &rules);
        let mesh = after(Mesh::of_inputs(settled.clone(), pods, config, previous));
        Self { mesh, wanted: Some(wanted), decided: decided(&settled) }
    }

    /// What is in force when all proxies have taken this step of a handover ([`Mesh::handover`]); nothing new, unless it is
    /// the step that they are at.
    #[must_use]
    pub fn handed_on(self, step: u64) -> Self {
        match self.mesh.after_step(step) {
            Some(mesh) => Self { mesh, ..self },
            None => self,
        }
    }

    /// Whether an object is in force as it is written: one that refers to something missing may have to wait.
    pub fn is_as_written(&self, object: &ObjectKey) -> bool {
        !self.decided.aside.contains(object)
    }

    /// What is wrong with the objects that this was made of. It takes a look at all of them, so it is not for every push.
    pub fn findings<'a>(&self, objects: impl IntoIterator<Item = &'a Object>) -> Vec<Diagnostic> {
        let mut findings = analyze(objects, self.wanted.as_ref().unwrap_or(&self.mesh));
        for finding in findings.iter_mut().filter(|finding| finding.code == REFERENCED_RESOURCE_NOT_FOUND.name) {
            let words = finding.object.as_ref().and_then(|object| self.decided.words.get(object));
            finding.message.push_str(words.unwrap_or(&""));
        }
        findings
    }
}

/// What is decided about objects of which some refer to something missing.
struct Plan<'a> {
    inputs: &'a Inputs,
    wanted: &'a Mesh,
    before: Option<&'a InForce>,
    fates: BTreeMap<ObjectKey, Fate>,
    /// Rules from before, each with nothing but subsets that are needed and gone.
    rules: Vec<Rule>,
}

impl Plan<'_> {
    fn decide(&mut self) {
        for resource in self.inputs.virtual_services.iter() {
            if missing(resource, self.inputs, self.wanted).is_empty() {
                continue;
            }
            let fate = self.fate(resource);
            let in_force = match &fate {
                Fate::Held(held) => Some(held),
                Fate::Taken | Fate::TakenWithSubsets => Some(resource),
                Fate::Waits => None,
            };
            let kept: Vec<Rule> = in_force.into_iter().flat_map(|routes| self.gone_subsets(routes)).collect();
            let fate = if matches!(fate, Fate::Taken) && !kept.is_empty() { Fate::TakenWithSubsets } else { fate };
            self.rules.extend(kept);
            self.fates.insert(resource.key(), fate);
        }
    }

    fn fate(&self, resource: &Routes) -> Fate {
        let Some(before) = self.before else { return Fate::Taken };
        let Some(last) = before.decided.routes.get(&resource.key()) else { return Fate::Waits };
        if last.to_json() == resource.to_json() || !self.is_whole(last, before) {
            Fate::Taken
        } else {
            Fate::Held(Arc::clone(last))
        }
    }

    /// Whether everything that it refers to is there, or was and can stay.
    fn is_whole(&self, routes: &Routes, before: &InForce) -> bool {
        let there =
            |(host, subset): &(String, String)| before.decided.rules.iter().any(|rule| self.has(rule, host, subset));
        missing(routes, self.inputs, self.wanted).iter().all(|missing| missing.subset.as_ref().is_some_and(there))
    }

    fn has(&self, rule: &Rule, host: &str, subset: &str) -> bool {
        let own = self.wanted.resolve_host(&rule.spec.host, rule.namespace());
        host::is_subset_of(host, &own) && rule.spec.subsets.iter().any(|known| known.name == subset)
    }

    /// The rules from before that have subsets to which these routes lead and which are gone.
    fn gone_subsets(&self, routes: &Routes) -> Vec<Rule> {
        let before = self.before.map_or(&[][..], |before| before.decided.rules.as_slice());
        let gone = missing(routes, self.inputs, self.wanted).into_iter().filter_map(|missing| missing.subset);
        gone.flat_map(|(host, subset)| {
            let having = before.iter().filter(|rule| self.has(rule, &host, &subset));
            having.map(|rule| only_subset(rule, &subset)).collect::<Vec<_>>()
        })
        .collect()
    }
}

fn only_subset(rule: &Resource<DestinationRule>, name: &str) -> Rule {
    let mut rule = rule.clone();
    rule.spec.subsets.retain(|subset| subset.name == name);
    Arc::new(rule)
}

/// The objects as they are in force.
fn settle(inputs: &Inputs, fates: &BTreeMap<ObjectKey, Fate>, kept: &[Rule]) -> Inputs {
    let mut settled = inputs.clone();
    let routes = inputs.virtual_services.iter().filter_map(|routes| match fates.get(&routes.key()) {
        Some(Fate::Held(held)) => Some(Arc::clone(held)),
        Some(Fate::Waits) => None,
        Some(Fate::Taken | Fate::TakenWithSubsets) | None => Some(Arc::clone(routes)),
    });
    settled.virtual_services = Arc::new(routes.collect());
    let rules = Arc::make_mut(&mut settled.destination_rules);
    for rule in rules.iter_mut() {
        for old in kept {
            if is_successor(rule, old) {
                add_subsets(Arc::make_mut(rule), old);
            }
        }
    }
    rules.extend(gone(inputs, kept));
    settled.sort();
    settled
}

/// The rules that are kept and have no successor to add their subsets to.
fn gone(inputs: &Inputs, kept: &[Rule]) -> Vec<Rule> {
    let mut out: Vec<Resource<DestinationRule>> = Vec::new();
    for old in kept {
        if inputs.destination_rules.iter().any(|rule| is_successor(rule, old)) {
            continue;
        }
        match out.iter_mut().find(|rule| is_successor(rule, old)) {
            Some(rule) => add_subsets(rule, old),
            // The youngest, so that it yields to any other rule for the host.
            None => {
                let mut rule = Resource::clone(old);
                rule.age = u64::MAX;
                out.push(rule);
            }
        }
    }
    out.into_iter().map(Arc::new).collect()
}

/// Whether a rule is the same object for the same host.
fn is_successor(rule: &Resource<DestinationRule>, old: &Resource<DestinationRule>) -> bool {
    rule.key() == old.key() && rule.spec.host == old.spec.host
}

fn add_subsets(rule: &mut Resource<DestinationRule>, old: &Resource<DestinationRule>) {
    for subset in &old.spec.subsets {
        if !rule.spec.subsets.iter().any(|known| known.name == subset.name) {
            rule.spec.subsets.push(subset.clone());
        }
    }
}

fn by_key(routes: &[Routes]) -> BTreeMap<ObjectKey, Routes> {
    routes.iter().map(|resource| (resource.key(), Arc::clone(resource))).collect()
}

//! One resource type on one stream: what the proxy asked for, was given, has answered and is owed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Variant;
use super::blame;
use super::ledger::{Ledger, Shelf};
use super::message::{Names, Request, parse_version};
use super::progress::{Rejection, TypeProgress};
use super::view::{Changes, Selection, View};
use crate::{Resource, type_url};

/// The subscription to everything (xDS protocol, "how the client specifies what resources to return").
const WILDCARD: &str = "*";

/// A delta response is cut when its bodies reach this many bytes; the rest follows when it has been answered.
const RESPONSE_BYTES: usize = 1 << 20;

/// What keeping a name costs beyond its bytes, roughly.
const ENTRY_BYTES: usize = 64;

/// Up to so many resources are looked at without asking whether there is time.
const FEW: usize = 64;

/// So many refusals are looked into, in search of the resources that are to blame; one more counts for all.
pub(super) const REFUSALS: usize = 16;

/// Where a type stands in make-before-break order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Cluster,
    Endpoint,
    Listener,
    Route,
    /// Asked for one by one, by requests that wait for them; the table that they belong to is there.
    VirtualHost,
    /// Waits for nothing, and nothing waits for it.
    Free,
}

impl Stage {
    pub(super) fn of(type_url: &str) -> Self {
        match type_url {
            type_url::CLUSTER => Self::Cluster,
            type_url::ENDPOINT => Self::Endpoint,
            type_url::LISTENER => Self::Listener,
            type_url::ROUTE => Self::Route,
            type_url::VIRTUAL_HOST => Self::VirtualHost,
            _ => Self::Free,
        }
    }

    /// Types of which an empty first request means everything, and of which a state-of-the-world response is complete.
    fn is_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

pub(super) struct Subscription {
    pub(super) type_url: Arc<str>,
    pub(super) stage: Stage,
    variant: Variant,
    asked: bool,
    wildcard: bool,
    /// The wildcard was asked for by naming nothing.
    legacy: bool,
    names: Ledger,
    /// Bytes of the names that the client made the server keep.
    names_bytes: usize,
    /// What the proxy has been given and not been told to drop, with versions.
    given: Ledger,
    /// The same, where a later response has to repeat it.
    repeated: HashMap<Arc<str>, Resource>,
    /// Names to answer even if the proxy already has them.
    owed: BTreeSet<Arc<str>>,
    /// Everything has to be compared with the view.
    stale: bool,
    /// Names that have to be compared with the view.
    suspects: BTreeSet<Arc<str>>,
    /// A subscription that can tell from a response what is not there has had its first, even if there was nothing to say.
    greeted: bool,
    plan: Plan,
    outstanding: Option<Outstanding>,
    last_nonce: String,
    rejected: BTreeMap<Arc<str>, Rejected>,
    /// Responses refused since the view was new.
    refusals: usize,
    /// Revisions of what was sent last and of what was accepted last.
    sent: u64,
    acknowledged: u64,
}

struct Rejected {
    message: String,
    since: u64,
}

/// What is still to be sent of the view.
#[derive(Default)]
struct Plan {
    upserts: VecDeque<Resource>,
    /// Asked for, and not there.
    absent: Vec<Arc<str>>,
    /// Given, and there no more.
    removals: Vec<Arc<str>>,
    /// State of the world, clusters and listeners: everything there is.
    whole: Vec<Resource>,
}

struct Outstanding {
    nonce: String,
    names: Vec<Arc<str>>,
    revision: u64,
    since: Instant,
}

/// The content of a response.
pub(super) struct Batch {
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<Arc<str>>,
    /// Those of `resources` that the proxy does not have already.
    pub(super) news: Vec<Resource>,
}

/// What a request answered.
pub(super) struct Answer {
    pub(super) names: Vec<Arc<str>>,
    pub(super) refused: bool,
}

impl Subscription {
    pub(super) fn new(type_url: &str, variant: Variant, shelf: &Arc<Shelf>) -> Self {
        Self {
            type_url: type_url.into(),
            stage: Stage::of(type_url),
            variant,
            asked: false,
            wildcard: false,
            legacy: false,
            names: Ledger::new(shelf),
            names_bytes: 0,
            given: Ledger::new(shelf),
            repeated: HashMap::new(),
            owed: BTreeSet::new(),
            stale: false,
            suspects: BTreeSet::new(),
            greeted: false,
            plan: Plan::default(),
            outstanding: None,
            last_nonce: String::new(),
            rejected: BTreeMap::new(),
            refusals: 0,
            sent: 0,
            acknowledged: 0,
        }
    }

    /// Takes a request in: its answer to a response, and its change of names.
    pub(super) fn request(&mut self, request: Request) -> Option<Answer> {
        let first = !self.asked;
        self.asked = true;
        match request.names {
            Names::Delta { subscribe, unsubscribe, held } => {
                let answer = self.answer(&request.nonce, request.error);
                // Drop first: a name in both lists is wanted.
                unsubscribe.iter().for_each(|name| self.unsubscribe(name));
                if first {
                    self.wildcard = self.stage.is_whole() && subscribe.is_empty();
                    self.stale = self.wildcard;
                    self.hold(&held, &subscribe);
                }
                // The xDS protocol: whatever is subscribed to is answered, also if it was given before. What a new stream says
                // to hold is the exception.
                self.subscribe(subscribe.iter().map(|name| (name.as_str(), !(first && held.contains_key(name)))));
                answer
            }
            Names::All(names) => {
                // A request for an older response is overtaken: the client will answer the newer one with its newest names.
                if !first && !request.nonce.is_empty() && request.nonce != self.last_nonce {
                    return None;
                }
                let answer = self.answer(&request.nonce, request.error);
                self.set_names(&names, first);
                answer
            }
        }
    }

    /// What an earlier stream has left at the client: compared like anything else.
    fn hold(&mut self, held: &HashMap<String, String>, subscribe: &[String]) {
        let everything = self.wildcard || subscribe.iter().any(|name| name == WILDCARD);
        let wanted: HashSet<&str> = subscribe.iter().map(String::as_str).collect();
        let held = held.iter().filter(|(name, _)| everything || wanted.contains(name.as_str()));
        let held: Vec<(Arc<str>, u64)> = held
            // A version that is not ours differs from all of ours: 0 stands for none.
            .map(|(name, version)| (name.as_str().into(), parse_version(version).unwrap_or(0)))
            .collect();
        self.names_bytes += held.iter().map(|(name, _)| name.len() + ENTRY_BYTES).sum::<usize>();
        self.stale |= !held.is_empty();
        self.given.extend(held);
    }

    /// Names, and whether each is to be answered even if the proxy already has it.
    fn subscribe<'a>(&mut self, names: impl Iterator<Item = (&'a str, bool)>) {
        let (mut news, mut owed_names) = (Vec::new(), Vec::new());
        for (name, owed) in names {
            if name == WILDCARD {
                self.stale |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            let known = self.names.entry(name).map(|entry| Arc::clone(&entry.0));
            let is_new = known.is_none();
            let name = known.unwrap_or_else(|| name.into());
            if is_new {
                news.push(Arc::clone(&name));
            }
            if owed {
                owed_names.push(name);
            }
        }
        news.sort_unstable();
        news.dedup();
        self.names_bytes += news.iter().map(|name| name.len() + ENTRY_BYTES).sum::<usize>();
        self.names.extend(news.into_iter().map(|name| (name, 0)));
        // A tree is built at once of what comes together.
        self.owed.append(&mut owed_names.into_iter().collect());
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            let given = self.given.iter().map(|entry| &entry.0);
            let dropped: Vec<_> = given.filter(|name| !self.names.contains(name)).cloned().collect();
            dropped.iter().for_each(|name| self.forget(name));
            // A plan made for everything may hold more than the names.
            self.plan = Plan::default();
            self.suspects.clear();
            self.stale = self.is_subscribed();
        } else if self.names.remove(name) {
            self.names_bytes -= name.len() + ENTRY_BYTES;
            self.forget(name);
            if self.wildcard {
                // The client has dropped what the wildcard may still cover.
                self.owed.insert(name.into());
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.drop_given(name);
        self.owed.remove(name);
        self.suspects.remove(name);
        self.plan.drop_names(&BTreeSet::from([Arc::from(name)]));
    }

    fn set_names(&mut self, names: &[String], first: bool) {
        self.legacy = names.is_empty() && self.stage.is_whole() && (first || self.legacy);
        let wildcard = self.legacy || names.iter().any(|name| name == WILDCARD);
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).filter(|name| *name != WILDCARD).collect();
        if self.wildcard && !wildcard {
            self.unsubscribe(WILDCARD);
        }
        let names = self.names.iter().map(|entry| &entry.0);
        let dropped: Vec<_> = names.filter(|name| !wanted.contains(&***name)).cloned().collect();
        dropped.iter().for_each(|name| self.unsubscribe(name));
        let news: Vec<&str> = wanted.into_iter().filter(|name| !self.names.contains(name)).collect();
        let everything = wildcard.then_some(WILDCARD);
        self.subscribe(everything.into_iter().chain(news).map(|name| (name, true)));
    }

    fn answer(&mut self, nonce: &str, error: Option<String>) -> Option<Answer> {
        let outstanding = self.outstanding.take_if(|outstanding| !nonce.is_empty() && outstanding.nonce == nonce)?;
        let refused = error.is_some();
        let names = match error {
            None => {
                self.acknowledged = outstanding.revision;
                outstanding.names.iter().for_each(|name| drop(self.rejected.remove(name)));
                outstanding.names
            }
            Some(message) => self.blame(&outstanding, &message),
        };
        Some(Answer { names, refused })
    }

    /// Notes which resources of a refused response the error names; all of them when it names none. The others go out once
    /// more: a client may have dropped them too (Envoy does, when a resource breaks a rule of its message).
    fn blame(&mut self, outstanding: &Outstanding, message: &str) -> Vec<Arc<str>> {
        let message = blame::cut(message);
        self.refusals += 1;
        let (mut blamed, mut others) = blame::mentioned(message, &outstanding.names);
        if blamed.is_empty() || self.refusals > REFUSALS {
            blamed.append(&mut others);
        }
        for name in &blamed {
            let message = blame::reason(message, name).to_owned();
            self.rejected.insert(Arc::clone(name), Rejected { message, since: outstanding.revision });
        }
        for name in others {
            self.rejected.remove(&name);
            if self.covers(&name) && !self.is_whole() {
                self.owed.insert(name);
            }
        }
        blamed
    }

    pub(super) fn names_bytes(&self) -> usize {
        self.names_bytes
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Sends a name again although it has not changed, if it was given before: its owner was sent anew, and an Envoy then
    /// waits for it once more (xDS protocol, "resource warming").
    pub(super) fn repeat(&mut self, name: &str) {
        if let Some((name, _)) = self.given.entry(name) {
            self.owed.insert(Arc::clone(name));
        }
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.names.iter().map(|entry| Arc::clone(&entry.0)).collect()
    }

    /// A view of another revision is there, after one that everything that was given has been compared with.
    pub(super) fn renew(&mut self, view: &dyn View, before: &dyn View) {
        self.refusals = 0;
        self.review(view, before);
    }

    /// Another view is there. What is planned already is part of it, too.
    pub(super) fn review(&mut self, view: &dyn View, before: &dyn View) {
        if !self.is_subscribed() || self.stale {
            return;
        }
        match view.changes(&self.type_url, before) {
            Changes::Nothing => {}
            Changes::Named(names) if !self.is_whole() => {
                let wanted: Vec<_> = names.into_iter().filter(|name| self.covers(name)).collect();
                self.suspects.extend(wanted);
            }
            Changes::Named(_) | Changes::Anything => self.stale = true,
        }
    }

    /// Whether the next response takes long to put together.
    pub(super) fn is_heavy(&self) -> bool {
        let many = self.owed.len() + self.suspects.len() + self.plan.upserts.len() > FEW;
        let whole = self.is_whole() && !self.owed.is_empty();
        self.outstanding.is_none() && self.is_subscribed() && (self.stale || many || whole)
    }

    /// The next response of what is new, once the last one has been answered.
    pub(super) fn next_upserts(&mut self, view: &dyn View) -> Option<Batch> {
        if self.outstanding.is_some() || !self.is_subscribed() {
            return None;
        }
        self.compare(view);
        let missing = !self.plan.absent.is_empty();
        let removed = match (self.variant, self.stage) {
            // A listener may take over the address of one that is gone, in the same response.
            (Variant::Delta, Stage::Listener) => {
                let mut removed = std::mem::take(&mut self.plan.absent);
                removed.append(&mut self.plan.removals);
                removed
            }
            (Variant::Delta, _) => std::mem::take(&mut self.plan.absent),
            (Variant::StateOfTheWorld, _) => {
                self.plan.absent.clear();
                Vec::new()
            }
        };
        let listener_gone = self.stage == Stage::Listener && !self.plan.removals.is_empty();
        let due = !self.plan.upserts.is_empty() || self.lacks_greeting();
        if self.is_whole() {
            (due || missing || listener_gone).then(|| self.whole_batch())
        } else {
            (due || !removed.is_empty()).then(|| self.delta_batch(removed))
        }
    }

    /// Responses are complete: what is not in them is gone.
    fn is_whole(&self) -> bool {
        self.variant == Variant::StateOfTheWorld && self.stage.is_whole()
    }

    fn lacks_greeting(&self) -> bool {
        !self.greeted && (self.wildcard || (self.is_whole() && self.is_subscribed()))
    }

    fn delta_batch(&mut self, removed: Vec<Arc<str>>) -> Batch {
        let mut bytes = 0;
        let mut resources = Vec::new();
        while bytes < RESPONSE_BYTES
            && let Some(resource) = self.plan.upserts.pop_front()
        {
            bytes += resource.len();
            resources.push(resource);
        }
        if self.plan.upserts.is_empty() {
            // The place of a first configuration is not needed again.
            self.plan.upserts = VecDeque::new();
        }
        Batch { news: resources.clone(), resources, removed }
    }

    /// Everything there is, and of clusters also what will be gone, as it was: it goes when nothing names it any more.
    fn whole_batch(&mut self) -> Batch {
        let news = self.plan.upserts.drain(..).collect();
        let mut resources = self.plan.whole.clone();
        if self.stage == Stage::Listener {
            std::mem::take(&mut self.plan.removals).iter().for_each(|name| self.drop_given(name));
        }
        let kept = self.plan.removals.iter().filter_map(|name| self.repeated.get(name).cloned());
        resources.extend(kept);
        Batch { resources, removed: Vec::new(), news }
    }

    /// The response that takes away what is gone.
    pub(super) fn next_removals(&mut self) -> Option<Batch> {
        if self.outstanding.is_some() || self.plan.removals.is_empty() {
            return None;
        }
        let removed = std::mem::take(&mut self.plan.removals);
        match self.variant {
            Variant::Delta => Some(Batch { resources: Vec::new(), removed, news: Vec::new() }),
            Variant::StateOfTheWorld => {
                removed.iter().for_each(|name| self.drop_given(name));
                self.is_whole().then(|| Batch {
                    resources: self.plan.whole.clone(),
                    removed: Vec::new(),
                    news: Vec::new(),
                })
            }
        }
    }

    fn drop_given(&mut self, name: &str) {
        self.given.remove(name);
        self.repeated.remove(name);
        self.rejected.remove(name);
    }

    /// Notes that a batch goes out.
    pub(super) fn record(&mut self, batch: &Batch, nonce: &str, revision: u64, now: Instant) {
        let repeated = self.is_whole();
        self.given.extend(batch.news.iter().map(|resource| (Arc::clone(&resource.name), resource.version)));
        if repeated {
            self.repeated.extend(batch.news.iter().map(|resource| (Arc::clone(&resource.name), resource.clone())));
        }
        batch.removed.iter().for_each(|name| self.drop_given(name));
        self.greeted = true;
        self.sent = revision;
        nonce.clone_into(&mut self.last_nonce);
        let names = batch.resources.iter().map(|resource| Arc::clone(&resource.name)).collect();
        self.outstanding = Some(Outstanding { nonce: nonce.to_owned(), names, revision, since: now });
    }

    /// Plans what differs between what was given and what the view has.
    fn compare(&mut self, view: &dyn View) {
        if self.stale || (self.is_whole() && !self.owed.is_empty()) {
            return self.compare_all(view);
        }
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            self.plan.drop_names(&owed);
            self.suspects.retain(|name| !owed.contains(name));
            let owed: Vec<_> = owed.into_iter().collect();
            let found = view.resources(&self.type_url, Selection::Named(&owed));
            // Each name is there once at most.
            if found.len() < owed.len() {
                let there: HashSet<&str> = found.iter().map(|resource| &*resource.name).collect();
                self.plan.absent.extend(owed.iter().filter(|name| !there.contains(&***name)).cloned());
            }
            self.plan.upserts.extend(found);
        }
        if !self.suspects.is_empty() {
            let suspects: Vec<_> = std::mem::take(&mut self.suspects).into_iter().collect();
            let found = view.resources(&self.type_url, Selection::Named(&suspects));
            let there: HashSet<&str> = found.iter().map(|resource| &*resource.name).collect();
            let gone = suspects.iter().filter(|name| !there.contains(&***name) && self.given.contains(name));
            self.plan.removals.extend(gone.cloned());
            let differing: Vec<_> = found.into_iter().filter(|resource| self.lacks(resource)).collect();
            self.plan.upserts.extend(differing);
        }
    }

    fn compare_all(&mut self, view: &dyn View) {
        self.stale = false;
        self.suspects.clear();
        let owed = std::mem::take(&mut self.owed);
        let wanted = self.select(view);
        let there: HashSet<&str> = wanted.iter().map(|resource| &*resource.name).collect();
        let given = self.given.iter().map(|entry| &entry.0);
        let mut removals: Vec<_> = given.filter(|name| !there.contains(&***name)).cloned().collect();
        removals.retain(|name| !owed.contains(name));
        removals.sort();
        let absent = owed.iter().filter(|name| !there.contains(&***name)).cloned().collect();
        let differs = |resource: &&Resource| owed.contains(&resource.name) || self.lacks(resource);
        let upserts = wanted.iter().filter(differs).cloned().collect();
        self.plan = Plan { upserts, absent, removals, whole: if self.is_whole() { wanted } else { Vec::new() } };
    }

    /// Whether the proxy has another version, or none.
    fn lacks(&self, resource: &Resource) -> bool {
        let given = self.given.get(&resource.name);
        given.is_none_or(|version| version != resource.version && !resource.is_stand_in())
    }

    fn select(&self, view: &dyn View) -> Vec<Resource> {
        let mut wanted = if self.wildcard { view.resources(&self.type_url, Selection::All) } else { Vec::new() };
        if !self.names.is_empty() {
            let there: HashSet<&str> = wanted.iter().map(|resource| &*resource.name).collect();
            let names = self.names.iter().map(|entry| &entry.0);
            let mut rest: Vec<_> = names.filter(|name| !there.contains(&***name)).cloned().collect();
            rest.sort();
            wanted.extend(view.resources(&self.type_url, Selection::Named(&rest)));
        }
        wanted
    }

    /// Nothing new is left to send, and everything that was sent has been answered.
    pub(super) fn is_made(&self) -> bool {
        let planned = !self.plan.upserts.is_empty() || !self.plan.absent.is_empty();
        let due = self.stale || planned || !self.owed.is_empty() || !self.suspects.is_empty() || self.lacks_greeting();
        self.outstanding.is_none() && !(due && self.is_subscribed())
    }

    /// And nothing is left to take away.
    pub(super) fn is_settled(&self) -> bool {
        self.is_made() && self.plan.removals.is_empty()
    }

    /// Has asked for this type and been answered.
    pub(super) fn is_served(&self) -> bool {
        self.asked && self.is_subscribed() && self.is_made()
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.since)
    }

    pub(super) fn rejections(&self) -> impl Iterator<Item = Rejection> {
        self.rejected.iter().map(|(name, rejected)| Rejection {
            type_url: Arc::clone(&self.type_url),
            resource: Arc::clone(name),
            message: rejected.message.clone(),
            since: rejected.since,
        })
    }

    pub(super) fn progress(&self) -> TypeProgress {
        TypeProgress {
            type_url: Arc::clone(&self.type_url),
            resources: self.given.len(),
            sent: self.sent,
            acknowledged: self.acknowledged,
            waiting: self.outstanding.is_some(),
        }
    }
}

impl Plan {
    fn drop_names(&mut self, names: &BTreeSet<Arc<str>>) {
        // Always so between waves, when names come and go by the thousand.
        if self.upserts.is_empty() && self.absent.is_empty() && self.removals.is_empty() && self.whole.is_empty() {
            return;
        }
        self.upserts.retain(|resource| !names.contains(&resource.name));
        self.absent.retain(|absent| !names.contains(absent));
        self.removals.retain(|removal| !names.contains(removal));
        self.whole.retain(|resource| !names.contains(&resource.name));
    }
}

//! One stream's state: waves through the resource types, one view at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::references;
use crate::server::Variant;
use crate::server::ledger::Shelf;
use crate::server::message::{Request, Response};
use crate::server::progress::Progress;
use crate::server::subscription::{Batch, Stage, Subscription};
use crate::server::view::View;

/// Resource types that one stream may ask for.
pub(in crate::server) const TYPES: usize = 32;

/// Bytes of names that one stream may make the server keep.
const NAMES_BYTES: usize = 32 << 20;

/// How long a proxy may take to ask for what a cluster or listener names before the rest stops waiting for it.
const ASKING: Duration = Duration::from_secs(5);

/// So many of the names that are waited for are told of.
const TOLD: usize = 8;

/// A request that ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the request names no resource type")]
    NoType,
    #[error("more than {TYPES} resource types on one stream")]
    TooManyTypes,
    #[error("more than {NAMES_BYTES} bytes of resource names on one stream")]
    TooManyNames,
}

/// A proxy that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no answer to a response of type {type_url} in {} s", .within.as_secs())]
pub struct Stuck {
    pub type_url: Arc<str>,
    pub within: Duration,
}

/// The server's side of one stream, without input, output or clock.
///
/// Feed it requests and views, send what [`Session::poll`] returns until it returns nothing, and call
/// [`Session::on_deadline`] when [`Session::deadline`] has passed.
pub struct Session {
    variant: Variant,
    /// In make-before-break order.
    types: Vec<Subscription>,
    view: Arc<dyn View>,
    newest: Option<Arc<dyn View>>,
    /// By owner and name.
    awaited: BTreeMap<(Arc<str>, Arc<str>), Awaited>,
    settled: u64,
    nonces: u64,
    answer_within: Duration,
    shelf: Arc<Shelf>,
}

/// What a look at a session has found.
pub enum Next {
    Send(Response),
    Nothing,
    /// Much has to be looked at: call [`Session::poll`] where that disturbs nobody.
    Work,
}

/// A resource that a sent one names, and that the proxy has not asked for yet.
struct Awaited {
    owner_type: Stage,
    type_url: &'static str,
    since: Instant,
    overdue: bool,
}

impl Session {
    /// A proxy that leaves a response unanswered for `answer_within` is stuck. What it is given is kept on `shelf`, once for
    /// all sessions that have the same.
    pub fn new(variant: Variant, view: Arc<dyn View>, answer_within: Duration, shelf: &Arc<Shelf>) -> Self {
        Self {
            variant,
            types: Vec::new(),
            view,
            newest: None,
            awaited: BTreeMap::new(),
            settled: 0,
            nonces: 0,
            answer_within,
            shelf: Arc::clone(shelf),
        }
    }

    /// What the proxy should have from now on; views between this and the one being sent are skipped.
    pub fn set_view(&mut self, view: Arc<dyn View>) {
        let hosts = self.types.iter().find(|of| of.stage == Stage::VirtualHost).map(Subscription::names);
        self.newest = Some(hosts.and_then(|hosts| view.demanding(&hosts)).unwrap_or(view));
    }

    /// Takes a request in.
    pub fn on_request(&mut self, request: Request, now: Instant) -> Result<(), Error> {
        if request.type_url.is_empty() {
            return Err(Error::NoType);
        }
        let subscription = self.subscription(&request.type_url)?;
        let stage = self.types[subscription].stage;
        let asks = request.names.ask();
        let answer = self.types[subscription].request(request);
        if self.types.iter().map(Subscription::names_bytes).sum::<usize>() > NAMES_BYTES {
            return Err(Error::TooManyNames);
        }
        if stage == Stage::VirtualHost {
            self.on_demand(subscription);
        }
        if let Some(answer) = answer {
            self.on_answer(stage, &answer.names, answer.refused, now);
        }
        if asks {
            let asked = &self.types[subscription];
            self.awaited.retain(|(_, name), awaited| *asked.type_url != *awaited.type_url || !asked.covers(name));
        }
        Ok(())
    }

    /// The proxy needs other virtual hosts than before: what they lead to is brought there first, in the wave that is under way.
    fn on_demand(&mut self, subscription: usize) {
        let hosts = self.types[subscription].names();
        if let Some(view) = self.view.demanding(&hosts) {
            let before = std::mem::replace(&mut self.view, view);
            self.types.iter_mut().for_each(|of| of.review(&*self.view, &*before));
        }
        self.newest = self.newest.take().map(|newest| newest.demanding(&hosts).unwrap_or(newest));
    }

    /// The place of a type in `types`, made when it is new.
    fn subscription(&mut self, type_url: &str) -> Result<usize, Error> {
        if let Some(found) = self.types.iter().position(|known| *known.type_url == *type_url) {
            return Ok(found);
        }
        if self.types.len() == TYPES {
            return Err(Error::TooManyTypes);
        }
        let new = Subscription::new(type_url, self.variant, &self.shelf);
        let at = self.types.partition_point(|known| known.stage <= new.stage);
        self.types.insert(at, new);
        Ok(at)
    }

    fn on_answer(&mut self, stage: Stage, names: &[Arc<str>], refused: bool, now: Instant) {
        if refused {
            // A refused cluster or listener makes nobody ask for anything.
            let refused: HashSet<&Arc<str>> = names.iter().collect();
            self.awaited.retain(|(owner, _), awaited| awaited.owner_type != stage || !refused.contains(owner));
        }
        // From now on the proxy knows what to ask for.
        self.awaited.values_mut().filter(|awaited| awaited.owner_type == stage).for_each(|awaited| awaited.since = now);
    }

    /// The next response to send, if there is one to send now.
    pub fn poll(&mut self, now: Instant) -> Option<Response> {
        loop {
            if let Some(response) = self.advance(now) {
                return Some(response);
            }
            if !self.end_wave() {
                return None;
            }
        }
    }

    /// The next response, as long as little has to be looked at for it: that may be done between other work.
    pub fn poll_light(&mut self, now: Instant) -> Next {
        loop {
            if self.types.iter().any(Subscription::is_heavy) {
                return Next::Work;
            }
            if let Some(response) = self.advance(now) {
                return Next::Send(response);
            }
            if !self.end_wave() {
                return Next::Nothing;
            }
        }
    }

    /// Everything that the proxy should have has been sent and answered once.
    pub fn has_settled(&self) -> bool {
        self.settled > 0
    }

    fn advance(&mut self, now: Instant) -> Option<Response> {
        for at in 0..self.types.len() {
            if self.may_send(self.types[at].stage)
                && let Some(batch) = self.types[at].next_upserts(&*self.view)
            {
                return Some(self.send(at, batch, now));
            }
        }
        if self.awaits_before(Stage::Free) || !self.are_made(Stage::Free) {
            return None;
        }
        let (at, batch) = (0..self.types.len()).find_map(|at| Some((at, self.types[at].next_removals()?)))?;
        Some(self.send(at, batch, now))
    }

    /// Listeners and route tables wait until clusters and endpoints are there. Endpoints do not wait for an answer to the
    /// clusters: an Envoy answers those only when it has got the endpoints that they need.
    fn may_send(&self, stage: Stage) -> bool {
        match stage {
            Stage::Listener | Stage::Route => self.are_made(Stage::Listener) && !self.awaits_before(Stage::Listener),
            // One that comes back names first which it has: only when it has asked for the rest, that has been compared.
            Stage::VirtualHost => {
                let has_tables = self.types.iter().any(|of| of.stage == Stage::Route && of.is_served());
                has_tables && self.are_made(stage) && !self.awaits_before(stage)
            }
            Stage::Cluster | Stage::Endpoint | Stage::Free => true,
        }
    }

    fn are_made(&self, before: Stage) -> bool {
        self.types.iter().filter(|of| of.stage < before).all(Subscription::is_made)
    }

    /// Whether resources of a type before this stage have still to be asked for.
    fn awaits_before(&self, stage: Stage) -> bool {
        self.awaited.values().any(|awaited| !awaited.overdue && Stage::of(awaited.type_url) < stage)
    }

    fn send(&mut self, at: usize, batch: Batch, now: Instant) -> Response {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let revision = self.view.revision();
        self.types[at].record(&batch, &nonce, revision, now);
        self.note_references(at, &batch, now);
        Response {
            type_url: self.types[at].type_url.to_string(),
            nonce,
            revision,
            resources: batch.resources,
            removed: batch.removed.iter().map(|name| name.to_string()).collect(),
        }
    }

    fn note_references(&mut self, at: usize, batch: &Batch, now: Instant) {
        let owner_type = self.types[at].stage;
        let Some(type_url) = references::referred_type(&self.types[at].type_url) else { return };
        if self.awaited.values().any(|awaited| awaited.owner_type == owner_type) {
            let owners = batch.news.iter().map(|owner| &owner.name).chain(&batch.removed);
            owners.for_each(|owner| self.forget_references(owner_type, owner));
        }
        for owner in &batch.news {
            for name in owner.references() {
                let referred = self.types.iter_mut().find(|of| *of.type_url == *type_url);
                if let Some(referred) = referred.filter(|referred| referred.covers(name)) {
                    referred.repeat(name);
                } else {
                    let awaited = Awaited { owner_type, type_url, since: now, overdue: false };
                    self.awaited.insert((Arc::clone(&owner.name), Arc::clone(name)), awaited);
                }
            }
        }
    }

    /// What a resource named before it was sent anew, or taken away, is not waited for.
    fn forget_references(&mut self, owner_type: Stage, owner: &Arc<str>) {
        let from = (Arc::clone(owner), Arc::from(""));
        let own = self.awaited.range(from..).take_while(|((of, _), _)| of == owner);
        let own: Vec<_> =
            own.filter(|(_, awaited)| awaited.owner_type == owner_type).map(|(key, _)| key.clone()).collect();
        for key in own {
            self.awaited.remove(&key);
        }
    }

    /// Ends the wave if everything has been answered, and starts the next one if there is a newer view.
    fn end_wave(&mut self) -> bool {
        if self.awaits_before(Stage::Free) || !self.types.iter().all(Subscription::is_settled) {
            return false;
        }
        // Envoy asks for listeners last, once it has its clusters; before that it serves nothing.
        let started = self.types.iter().any(|of| of.stage == Stage::Listener && of.is_served());
        if started && self.awaited.is_empty() {
            self.settled = self.settled.max(self.view.revision());
        }
        let Some(newest) = self.newest.take_if(|newest| newest.revision() >= self.view.revision()) else {
            return false;
        };
        let before = std::mem::replace(&mut self.view, newest);
        self.types.iter_mut().for_each(|of| of.renew(&*self.view, &*before));
        true
    }

    /// When to call [`Session::on_deadline`], if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let answers = self.types.iter().filter_map(|of| Some(of.waiting_since()? + self.answer_within));
        // Before its owner has been answered, nobody knows what to ask for.
        let unanswered: Vec<Stage> =
            self.types.iter().filter(|of| of.waiting_since().is_some()).map(|of| of.stage).collect();
        let due = |awaited: &&Awaited| !awaited.overdue && !unanswered.contains(&awaited.owner_type);
        let asked = self.awaited.values().filter(due).map(|awaited| awaited.since + ASKING);
        answers.chain(asked).min()
    }

    /// Stops waiting for names that the proxy has not asked for in time (they still count as not live); an error when it has
    /// left a response unanswered for too long.
    pub fn on_deadline(&mut self, now: Instant) -> Result<(), Stuck> {
        let late = |of: &&Subscription| of.waiting_since().is_some_and(|since| since + self.answer_within <= now);
        if let Some(stuck) = self.types.iter().find(late) {
            return Err(Stuck { type_url: Arc::clone(&stuck.type_url), within: self.answer_within });
        }
        let late = |awaited: &&mut Awaited| awaited.since + ASKING <= now;
        self.awaited.values_mut().filter(late).for_each(|awaited| awaited.overdue = true);
        Ok(())
    }

    pub fn progress(&self) -> Progress {
        let mut rejections: Vec<_> = self.types.iter().flat_map(Subscription::rejections).collect();
        rejections.sort_by_key(|rejection| rejection.since);
        Progress {
            settled: self.settled,
            sending: self.view.revision(),
            rejections,
            awaited: (self.awaited.iter().take(TOLD))
                .map(|((_, name), awaited)| (awaited.type_url, Arc::clone(name)))
                .collect(),
            types: self.types.iter().map(Subscription::progress).collect(),
        }
    }
}

#[cfg(test)]
mod tests;

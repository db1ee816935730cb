//! The last half hour: by seconds for five minutes, by tens of seconds before that. Bounded in edges, and in the numbers kept
//! for them; when there are too many, the oldest go first. Time is told by the caller.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::golden::{Golden, Outcome, grow};
use super::labels::Side;

/// Seconds for which there are steps of one second.
const FINE: u64 = 300;

/// Seconds of a step after that.
const COARSE: u64 = 10;

/// Seconds after which everything is forgotten.
pub(super) const KEPT: u64 = 1800;

/// Sides of edges: one with its strings is about a kilobyte.
const MOST_SIDES: usize = 20_000;

/// Numbers of one side in one step, altogether: each some 300 bytes.
const MOST_CELLS: usize = 200_000;

/// Different ends of requests; what comes beyond them is counted as the first, which says nothing. The second half of the
/// places is for those without flags, of which there are few.
const MOST_OUTCOMES: usize = 4_096;

/// What is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub requests: u64,
    /// By bucket.
    pub took: Vec<(usize, u64)>,
    pub sent: u64,
    pub received: u64,
    pub opened: u64,
    pub closed: u64,
}

/// A side that is known by where it lies.
#[derive(Debug, Clone)]
pub(super) struct Known(pub Arc<Side>);

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// What happened from a second on, until the next step's.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    pub start: u64,
    pub sides: HashMap<Known, Golden>,
}

#[derive(Debug)]
pub(super) struct Window {
    /// Oldest first. Who looks holds steps; one that is added to meanwhile is copied.
    coarse: VecDeque<Arc<Step>>,
    fine: VecDeque<Arc<Step>>,
    cells: usize,
    sides: HashSet<Arc<Side>>,
    outcomes: Arc<Vec<Outcome>>,
    outcome_ids: HashMap<Outcome, u16>,
    /// Requests and connections for which there was no room, here or at proxies.
    pub dropped: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            coarse: VecDeque::new(),
            fine: VecDeque::new(),
            cells: 0,
            sides: HashSet::new(),
            outcomes: Arc::new(vec![Outcome::default()]),
            outcome_ids: HashMap::from([(Outcome::default(), 0)]),
            dropped: 0,
        }
    }
}

impl Window {
    /// The one of those that say the same; none if there are too many.
    pub(super) fn intern(&mut self, side: Side) -> Option<Arc<Side>> {
        if let Some(known) = self.sides.get(&side) {
            return Some(Arc::clone(known));
        }
        if self.sides.len() >= MOST_SIDES {
            self.sides.retain(|side| Arc::strong_count(side) > 1);
            if self.sides.len() >= MOST_SIDES {
                return None;
            }
        }
        let side = Arc::new(side);
        self.sides.insert(Arc::clone(&side));
        Some(side)
    }

    /// Adds to the second `at`, or to the newest if that is later: clocks may step back.
    pub(super) fn add(&mut self, at: u64, side: &Arc<Side>, outcome: &Outcome, amount: &Amount) {
        let outcome = self.outcome(outcome);
        self.advance(at);
        if self.fine.back().is_none_or(|step| step.start < at) {
            self.fine.push_back(Arc::new(Step { start: at, ..Step::default() }));
        }
        let known = Known(Arc::clone(side));
        let is_new = self.fine.back().is_some_and(|step| !step.sides.contains_key(&known));
        if is_new && !self.make_room() {
            self.dropped = self.dropped.saturating_add(amount.requests).saturating_add(amount.opened);
            return;
        }
        let Some(step) = self.fine.back_mut() else { return };
        let golden = Arc::make_mut(step).sides.entry(known).or_default();
        self.cells += usize::from(is_new);
        if amount.requests > 0 {
            grow(golden.requests.entry(outcome).or_default(), amount.requests);
        }
        for (bucket, count) in &amount.took {
            if let Some(bucket) = golden.buckets.get_mut(*bucket) {
                grow(bucket, *count);
            }
        }
        grow(&mut golden.sent, amount.sent);
        grow(&mut golden.received, amount.received);
        grow(&mut golden.opened, amount.opened);
        grow(&mut golden.closed, amount.closed);
    }

    /// Steps with something between two seconds, both of which belong to it; of steps longer than a second, those that begin
    /// there.
    pub(super) fn steps(&self, from: u64, to: u64) -> Vec<Arc<Step>> {
        let all = self.coarse.iter().chain(&self.fine);
        all.filter(|step| (from..=to).contains(&step.start)).cloned().collect()
    }

    pub(super) fn outcomes(&self) -> Arc<Vec<Outcome>> {
        Arc::clone(&self.outcomes)
    }

    fn outcome(&mut self, outcome: &Outcome) -> u16 {
        if let Some(id) = self.outcome_ids.get(outcome) {
            return *id;
        }
        let most = if outcome.flags.is_empty() { MOST_OUTCOMES } else { MOST_OUTCOMES / 2 };
        if self.outcomes.len() >= most {
            let plain = Outcome { flags: Box::default(), ..outcome.clone() };
            return if plain == *outcome { 0 } else { self.outcome(&plain) };
        }
        let Ok(id) = u16::try_from(self.outcomes.len()) else { return 0 };
        Arc::make_mut(&mut self.outcomes).push(outcome.clone());
        self.outcome_ids.insert(outcome.clone(), id);
        id
    }

    /// Has what is no longer of the last five minutes be kept by tens of seconds, and what is older than half an hour be
    /// forgotten.
    fn advance(&mut self, now: u64) {
        while let Some(step) = self.fine.pop_front_if(|step| step.start + FINE <= now) {
            let start = step.start - step.start % COARSE;
            if self.coarse.back().is_none_or(|last| last.start != start) {
                self.coarse.push_back(Arc::new(Step { start, ..Step::default() }));
            }
            let Some(last) = self.coarse.back_mut().map(Arc::make_mut) else { continue };
            let before = last.sides.len();
            for (side, golden) in &step.sides {
                last.sides.entry(side.clone()).or_default().add(golden);
            }
            self.cells = (self.cells + last.sides.len() - before).saturating_sub(step.sides.len());
        }
        let mut gone = false;
        while let Some(step) = self.coarse.pop_front_if(|step| step.start + KEPT <= now) {
            self.cells = self.cells.saturating_sub(step.sides.len());
            gone = true;
        }
        if gone {
            self.sides.retain(|side| Arc::strong_count(side) > 1);
        }
    }

    /// Forgets the oldest steps until there is room for one more number.
    fn make_room(&mut self) -> bool {
        while self.cells >= MOST_CELLS {
            let oldest = match self.coarse.pop_front() {
                Some(step) => step,
                // The newest is what is added to.
                None if self.fine.len() > 1 => match self.fine.pop_front() {
                    Some(step) => step,
                    None => return false,
                },
                None => return false,
            };
            self.cells = self.cells.saturating_sub(oldest.sides.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{read, tests::values};
    use super::super::view::End;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn side(window: &mut Window, name: &str) -> Arc<Side> {
        let labels = [("reporter", "source"), ("request_protocol", "http"), ("destination_workload", name)];
        let (side, _) = read(&values(&labels), &End::default()).expect("it means something");
        window.intern(side).expect("there is room")
    }

    fn requests(count: u64) -> Amount {
        Amount { requests: count, ..Amount::default() }
    }

    fn counted(window: &Window, from: u64, to: u64) -> u64 {
        let steps = window.steps(from, to);
        steps.iter().flat_map(|step| step.sides.values()).flat_map(|golden| golden.requests.values()).sum()
    }

    #[test]
    fn seconds_become_tens_of_seconds_and_are_forgotten() {
        let mut window = Window::default();
        let a = side(&mut window, "a");
        for second in 0..KEPT + 60 {
            window.add(NOW + second, &a, &Outcome::default(), &requests(1));
        }
        let last = NOW + KEPT + 59;
        assert_eq!(counted(&window, last - 59, last), 60);
        assert_eq!(counted(&window, last, last), 1);
        assert_eq!(window.fine.len(), usize::try_from(FINE).expect("it is small"));
        assert!(window.coarse.iter().all(|step| step.start % COARSE == 0));
        let all = counted(&window, 0, last);
        assert!((KEPT - COARSE..=KEPT + COARSE).contains(&all), "{all}");
        assert_eq!(window.cells, window.coarse.len() + window.fine.len());
        drop(a);
        let b = side(&mut window, "b");
        window.add(last + 2 * KEPT, &b, &Outcome::default(), &requests(1));
        assert_eq!((counted(&window, 0, u64::MAX), window.sides.len(), window.cells), (1, 1, 1));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_numbers() {
        let mut window = Window::default();
        let sides: Vec<Arc<Side>> = (0..1000).map(|number| side(&mut window, &number.to_string())).collect();
        let seconds = MOST_CELLS as u64 / 1000 + 20;
        for second in 0..seconds {
            for side in &sides {
                window.add(NOW + second, side, &Outcome::default(), &requests(1));
            }
        }
        assert!(window.cells <= MOST_CELLS && window.dropped == 0);
        assert_eq!(counted(&window, NOW, NOW + 19), 0);
        assert_eq!(counted(&window, NOW + seconds - 100, NOW + seconds), 100_000);
    }

    #[test]
    fn sides_and_outcomes_are_bounded() {
        let mut window = Window::default();
        let held: Vec<Arc<Side>> = (0..MOST_SIDES).map(|number| side(&mut window, &number.to_string())).collect();
        let labels = [("reporter", "source"), ("request_protocol", "http"), ("destination_workload", "more")];
        let more = || read(&values(&labels), &End::default()).expect("it means something").0;
        assert!(window.intern(more()).is_none());
        drop(held);
        let more = window.intern(more()).expect("nobody holds the others");
        for number in 0..MOST_OUTCOMES + 5 {
            let flags = Outcome { code: "503".into(), flags: number.to_string().into(), ..Outcome::default() };
            window.add(NOW, &more, &flags, &requests(1));
        }
        assert_eq!(window.outcomes.len(), MOST_OUTCOMES / 2 + 1);
        assert_eq!(window.outcomes.last().map(|it| (&*it.code, &*it.flags)), Some(("503", "")));
        for code in 0..MOST_OUTCOMES + 5 {
            let outcome = Outcome { code: code.to_string().into(), ..Outcome::default() };
            window.add(NOW, &more, &outcome, &requests(1));
        }
        assert_eq!(window.outcomes.len(), MOST_OUTCOMES);
        assert_eq!(counted(&window, NOW, NOW), 2 * (MOST_OUTCOMES as u64 + 5), "they count, whatever they were");
    }

    #[test]
    fn a_clock_that_steps_back_adds_to_the_newest_second() {
        let mut window = Window::default();
        let a = side(&mut window, "a");
        window.add(NOW, &a, &Outcome::default(), &requests(1));
        window.add(NOW - 100, &a, &Outcome::default(), &requests(1));
        assert_eq!(counted(&window, NOW, NOW), 2);
    }
}

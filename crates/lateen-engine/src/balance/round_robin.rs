//! Round robin by weight: earliest deadline first, as Envoy schedules, so that heavy hosts are spread over the round and
//! not served in a row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    weights: Vec<u64>,
    /// All of one weight: a counter is enough.
    uniform: bool,
    next: usize,
    /// (deadline, order of arrival, index); deadlines in units of 2^64 / weight, which no number of rounds makes overflow.
    queue: BinaryHeap<Reverse<(u128, u64, usize)>>,
    arrivals: u64,
}

const UNIT: u128 = 1 << 64;

/// What waiting one turn is.
pub(super) const WHOLE_TURN: u64 = 1000;

impl RoundRobin {
    /// A weight of zero is taken as one.
    pub(super) fn new(weights: Vec<u64>) -> Self {
        let uniform = weights.windows(2).all(|pair| pair[0] == pair[1]);
        if uniform {
            return Self { uniform, weights, ..Self::default() };
        }
        Self::in_turns(weights, |_| WHOLE_TURN)
    }

    /// By weight, be they all the same; the first turn of each comes after `wait`.
    pub(super) fn in_turns(weights: Vec<u64>, wait: impl Fn(usize) -> u64) -> Self {
        let mut order = Self { weights, ..Self::default() };
        for index in 0..order.weights.len() {
            order.push(order.turn(index, wait(index)), index);
        }
        order
    }

    fn turn(&self, index: usize, wait: u64) -> u128 {
        UNIT / u128::from(self.weights[index].max(1)) * u128::from(wait) / u128::from(WHOLE_TURN)
    }

    pub(super) fn is_uniform(&self) -> bool {
        self.uniform
    }

    fn push(&mut self, deadline: u128, index: usize) {
        self.queue.push(Reverse((deadline, self.arrivals, index)));
        self.arrivals += 1;
    }

    /// The next index. There must be at least one.
    pub(super) fn next(&mut self) -> usize {
        self.next_for(|_| WHOLE_TURN)
    }

    /// The next index, which then waits so long for its next turn, in thousandths of one. Where all weights are the same, and
    /// turns go round, nobody waits longer than others.
    pub(super) fn next_for(&mut self, wait: impl Fn(usize) -> u64) -> usize {
        match (self.uniform, self.queue.pop()) {
            (false, Some(Reverse((deadline, _, index)))) => {
                self.push(deadline + self.turn(index, wait(index)), index);
                index
            }
            _ => {
                let index = self.next % self.weights.len().max(1);
                self.next = index + 1;
                index
            }
        }
    }
}

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

impl RoundRobin {
    /// A weight of zero is taken as one.
    pub(super) fn new(weights: Vec<u64>) -> Self {
        let uniform = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let mut order = Self { uniform, ..Self::default() };
        if !uniform {
            for (index, weight) in weights.iter().enumerate() {
                order.push(UNIT / u128::from((*weight).max(1)), index);
            }
        }
        order.weights = weights;
        order
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
        self.next_for(|_| 1)
    }

    /// The next index, where one with a load of `n` (not zero) waits `n` times as long for its next turn. Where all weights
    /// are the same, loads do not count.
    pub(super) fn next_for(&mut self, load: impl Fn(usize) -> u64) -> usize {
        match (self.uniform, self.queue.pop()) {
            (false, Some(Reverse((deadline, _, index)))) => {
                let turn = UNIT / u128::from(self.weights[index].max(1));
                self.push(deadline + turn * u128::from(load(index)), index);
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

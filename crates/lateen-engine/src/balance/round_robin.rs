//! Round robin by weight: earliest deadline first, as Envoy schedules, so that heavy hosts are spread over the round and
//! not served in a row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    weights: Vec<u32>,
    /// All of one weight: a counter is enough.
    uniform: bool,
    next: usize,
    /// (deadline, order of arrival, index); deadlines in units of 2^20 / weight.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    arrivals: u64,
}

const UNIT: u64 = 1 << 20;

impl RoundRobin {
    pub(super) fn new(weights: &[u32]) -> Self {
        let uniform = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let mut order = Self { weights: weights.to_vec(), uniform, ..Self::default() };
        if !uniform {
            for (index, weight) in weights.iter().enumerate() {
                order.push(UNIT / u64::from((*weight).max(1)), index);
            }
        }
        order
    }

    fn push(&mut self, deadline: u64, index: usize) {
        self.queue.push(Reverse((deadline, self.arrivals, index)));
        self.arrivals += 1;
    }

    /// The next index. There must be at least one.
    pub(super) fn next(&mut self) -> usize {
        match (self.uniform, self.queue.pop()) {
            (false, Some(Reverse((deadline, _, index)))) => {
                self.push(deadline + UNIT / u64::from(self.weights[index].max(1)), index);
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

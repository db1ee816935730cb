//! How load is spread over priorities, and when a priority panics: Envoy's rules, in percent.

#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Percent of requests for each priority; they add up to 100 unless nothing is there.
    percent: Vec<u32>,
    panic: Vec<bool>,
}

impl Loads {
    /// `counts`: healthy and all hosts of each priority.
    pub(super) fn new(counts: &[(usize, usize)], overprovisioning: u32, panic_threshold: u32) -> Self {
        let health: Vec<u32> = counts.iter().map(|(up, all)| health(*up, *all, overprovisioning)).collect();
        let total = health.iter().sum::<u32>().min(100);
        let mut percent = vec![0; counts.len()];
        let mut left = 100;
        if total > 0 {
            for (index, health) in health.iter().enumerate() {
                // When not everything is healthy, what is there is scaled up to 100.
                percent[index] = (health * 100 / total).min(left);
                left -= percent[index];
            }
            // What rounding left goes to the first priority that has any.
            if let Some(first) = percent.iter().position(|share| *share > 0) {
                percent[first] += left;
            }
        }
        // While the priorities together are healthy enough, none panics.
        let panic = |(up, all): &(usize, usize)| total < 100 && *all > 0 && *up * 100 < *all * panic_threshold as usize;
        let panic: Vec<bool> = counts.iter().map(panic).collect();
        if total == 0 {
            // Nothing is healthy: priorities in panic share the load by their hosts.
            let hosts: usize = counts.iter().zip(&panic).filter(|(_, panic)| **panic).map(|((_, all), _)| all).sum();
            let mut left = 100;
            for (index, (_, all)) in counts.iter().enumerate().filter(|(index, _)| panic[*index]) {
                percent[index] = u32::try_from(all * 100 / hosts.max(1)).unwrap_or(100).min(left);
                left -= percent[index];
            }
            if let Some(first) = percent.iter().position(|share| *share > 0) {
                percent[first] += left;
            }
        }
        Self { percent, panic }
    }

    pub(super) fn in_panic(&self, priority: usize) -> bool {
        self.panic[priority]
    }

    /// The priority for a number.
    pub(super) fn level(&self, number: u64) -> Option<usize> {
        let mut left = u32::try_from(number % 100).ok()?;
        self.percent.iter().position(|share| {
            let hit = left < *share;
            left = left.saturating_sub(*share);
            hit
        })
    }
}

fn health(up: usize, all: usize, overprovisioning: u32) -> u32 {
    if all == 0 {
        return 0;
    }
    u32::try_from(up * overprovisioning as usize / all).unwrap_or(100).min(100)
}

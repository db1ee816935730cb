//! How load is spread over priorities, and when a priority panics: Envoy's rules, in percent.

/// Hosts of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) healthy: usize,
    pub(super) degraded: usize,
    pub(super) all: usize,
}

/// Which hosts of a priority a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Healthy(usize),
    /// Degraded hosts get what healthy ones of all priorities cannot bear.
    Degraded(usize),
}

#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Percent of requests for the healthy hosts of each priority; with `degraded` they add up to 100 unless nothing is there.
    healthy: Vec<u32>,
    degraded: Vec<u32>,
    panic: Vec<bool>,
}

impl Loads {
    pub(super) fn new(counts: &[Count], overprovisioning: u32, panic_threshold: u32) -> Self {
        let bears = |hosts: fn(&Count) -> usize| -> Vec<u32> {
            counts.iter().map(|count| availability(hosts(count), count.all, overprovisioning)).collect()
        };
        let (healthy, degraded) = (bears(|count| count.healthy), bears(|count| count.degraded));
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        // While the priorities together are healthy enough, none panics. A priority without hosts is as bad as one whose
        // hosts are down.
        let panics = |count: &Count| {
            let up = count.healthy + count.degraded;
            total < 100
                && if count.all == 0 { panic_threshold > 0 } else { up * 100 < count.all * panic_threshold as usize }
        };
        let panic: Vec<bool> = counts.iter().map(panics).collect();
        let all_panic = panic.iter().all(|panic| *panic);
        let mut loads = Self { healthy: vec![0; counts.len()], degraded: vec![0; counts.len()], panic };
        if all_panic || total == 0 {
            loads.share_by_hosts(counts);
            return loads;
        }
        let mut left = 100;
        for (load, bears) in loads.healthy.iter_mut().zip(&healthy).chain(loads.degraded.iter_mut().zip(&degraded)) {
            // When not everything is available, what is there is scaled up to 100.
            *load = (bears * 100 / total).min(left);
            left -= *load;
        }
        loads.give_rest(left);
        loads
    }

    /// Every priority panics: they share the load by their hosts, be those up or down. If none may panic, nobody gets any.
    fn share_by_hosts(&mut self, counts: &[Count]) {
        let in_panic = || counts.iter().enumerate().filter(|(index, _)| self.panic[*index]);
        let hosts: usize = in_panic().map(|(_, count)| count.all).sum();
        let shares: Vec<(usize, usize)> =
            in_panic().map(|(index, count)| (index, count.all * 100 / hosts.max(1))).collect();
        let mut left = 100;
        for (index, share) in shares {
            self.healthy[index] = u32::try_from(share).unwrap_or(100).min(left);
            left -= self.healthy[index];
        }
        self.give_rest(left);
    }

    /// What rounding left goes to the first that has any.
    fn give_rest(&mut self, left: u32) {
        if let Some(first) = self.healthy.iter_mut().chain(&mut self.degraded).find(|load| **load > 0) {
            *first += left;
        }
    }

    pub(super) fn in_panic(&self, priority: usize) -> bool {
        self.panic[priority]
    }

    /// Who gets the request that drew a number.
    pub(super) fn choose(&self, number: u64) -> Option<Share> {
        let mut left = u32::try_from(number % 100).ok()?;
        let healthy = self.healthy.iter().enumerate().map(|(index, load)| (Share::Healthy(index), *load));
        let degraded = self.degraded.iter().enumerate().map(|(index, load)| (Share::Degraded(index), *load));
        healthy.chain(degraded).find_map(|(share, load)| {
            let hit = left < load;
            left = left.saturating_sub(load);
            hit.then_some(share)
        })
    }
}

/// How much of all load hosts can bear, in percent.
fn availability(hosts: usize, all: usize, overprovisioning: u32) -> u32 {
    if all == 0 {
        return 0;
    }
    u32::try_from(hosts * overprovisioning as usize / all).unwrap_or(100).min(100)
}

//! The table: counts, and times as ratios, because a time belongs to the machine that took it.

use std::fmt;
use std::time::Duration;

use crate::measure::{Cost, Figures};

/// From a change of endpoints to the last acknowledgement.
const LATENCY_GOAL: Duration = Duration::from_millis(250);
/// Processor time of a proxy's first configuration.
const FIRST_GOAL: Duration = Duration::from_millis(20);
/// Until all proxies that come back at once are in sync.
const STORM_GOAL: Duration = Duration::from_secs(10);

impl Cost {
    /// The time that 99 of 100 changes do not exceed.
    pub(crate) fn p99(&self) -> Duration {
        let at = (self.last.len() * 99).div_ceil(100).saturating_sub(1);
        self.last.get(at).copied().unwrap_or_default()
    }

    fn median(&self) -> Duration {
        self.last.get(self.last.len() / 2).copied().unwrap_or_default()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, resources, bytes, cpu, .. } = self;
        let (median, p99) = (self.median(), self.p99());
        write!(
            f,
            "{messages:.3} messages, {resources:.3} resources, {bytes:.0} bytes each; cpu {cpu:?}; last after {median:?}, p99 {p99:?}"
        )
    }
}

/// The figures as Markdown, one column for each size.
pub(crate) fn table(figures: &[Figures]) -> String {
    let out = std::cell::RefCell::new(String::new());
    let Some(smallest) = figures.first() else { return out.into_inner() };
    let row = |name: &str, cell: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = figures.iter().map(cell).collect();
        out.borrow_mut().push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    };
    row(&format!("{} proxies, services:", smallest.proxies), &|it| it.services.to_string());
    row("---", &|_| "---:".to_owned());
    let cost = |name: &str, of: fn(&Figures) -> &Cost| {
        row(&format!("{name}: messages per proxy"), &|it| format!("{:.3}", of(it).messages));
        row(&format!("{name}: resources per proxy"), &|it| format!("{:.3}", of(it).resources));
        row(&format!("{name}: processor time, of the first column's"), &|it| ratio(of(it).cpu, of(smallest).cpu));
    };
    cost("one endpoint changes", |it| &it.endpoints);
    row("one endpoint changes: p99 to the last ACK, of 250 ms", &|it| ratio(it.endpoints.p99(), LATENCY_GOAL));
    row("the same while 10 proxies do not read", &|it| ratio(it.disturbed.p99(), LATENCY_GOAL));
    row("messages for each of those when they read again", &|it| it.caught_up.to_string());
    cost("one route changes", |it| &it.routes);
    cost("something out of sight changes", |it| &it.apart);
    row("first configuration: kB", &|it| (it.first_bytes / 1024).to_string());
    row("first configuration: processor time, of 20 ms", &|it| ratio(it.first_cpu, FIRST_GOAL));
    row("memory: MB", &|it| (it.memory >> 20).to_string());
    row("memory before any proxy: MB", &|it| (it.memory_alone >> 20).to_string());
    row("all come back at once: until in sync, of 10 s", &|it| ratio(it.storm.took, STORM_GOAL));
    row("all come back at once: tries of the unluckiest", &|it| it.storm.tries.to_string());
    row("all come back at once: peak memory, of that before", &|it| {
        format!("{:.2}", it.storm.peak as f64 / it.memory as f64)
    });
    row("the same, saying what they hold: until in sync, of 10 s", &|it| ratio(it.storm_held.took, STORM_GOAL));
    out.into_inner()
}

fn ratio(measured: Duration, of: Duration) -> String {
    format!("{:.2}", measured.as_secs_f64() / of.as_secs_f64().max(1e-9))
}

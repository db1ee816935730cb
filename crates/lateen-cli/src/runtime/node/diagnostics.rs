//! Problems of the configuration, told when they come and when they go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Diagnostic;

use super::Node;
use crate::runtime::messages::Event;

/// How often the control plane is asked; it is asked over a Unix socket and answers from memory.
const PERIOD: Duration = Duration::from_millis(200);
/// Beyond this many lines for one change, the rest is counted.
const MAX_LINES: usize = 20;

/// Starts telling.
pub(super) fn start(node: &Arc<Node>) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut before: BTreeSet<String> = BTreeSet::new();
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let Ok(diagnostics) = node.api.diagnostics().await else { continue };
            let now: BTreeSet<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
            // What comes and goes within a moment (a gateway whose pod is being made) is nobody's problem.
            let new: Vec<&String> = now.iter().filter(|text| before.contains(*text) && !told.contains(*text)).collect();
            for text in new.iter().take(MAX_LINES) {
                node.tell(Event::Problem { text: (*text).clone() });
            }
            if new.len() > MAX_LINES {
                let text = format!("and {} more problems (`lateen analyze` lists all)", new.len() - MAX_LINES);
                node.tell(Event::Problem { text });
            }
            for text in told.difference(&now).take(MAX_LINES) {
                node.tell(Event::Solved { text: text.lines().next().unwrap_or_default().to_owned() });
            }
            told = now.intersection(&told).chain(new).cloned().collect();
            before = now;
        }
    });
}

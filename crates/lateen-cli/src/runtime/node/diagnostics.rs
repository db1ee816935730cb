//! Problems of the configuration, told when they come and when they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Diagnostic;

use super::Node;
use crate::runtime::messages::Event;

/// How often the control plane is asked; it is asked over a Unix socket and answers from memory.
const PERIOD: Duration = Duration::from_millis(100);
/// So many times in a row a problem must be there before it is told: what comes and goes within a moment is nobody's.
const LASTING: u32 = 2;
/// A file that cannot be read as it stands is told at once.
const AT_ONCE: u32 = 1;
/// The same for a selector without pods (a Sidecar's, a subset's): pods that are being made are not there yet.
const LASTING_WITHOUT_PODS: u32 = 50;
/// Beyond this many lines for one change, the rest is counted.
const MAX_LINES: usize = 20;

/// Starts telling.
pub(super) fn start(node: &Arc<Node>) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let Ok(diagnostics) = node.api.diagnostics().await else { continue };
            let now: BTreeSet<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
            seen = now.iter().map(|text| (text.clone(), seen.get(text).map_or(1, |times| times + 1))).collect();
            let lasting = |text: &String| seen[text] >= patience(text);
            let new: Vec<&String> = now.iter().filter(|text| lasting(text) && !told.contains(*text)).collect();
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
            node.told.send_modify(|rounds| *rounds += 1);
        }
    });
}

fn patience(text: &str) -> u32 {
    let waits_for_pods = text.contains("[IST0173]") || text.contains("[IST0101]") && text.contains("(Sidecar ");
    match text.contains("[IST") {
        _ if waits_for_pods => LASTING_WITHOUT_PODS,
        true => LASTING,
        false => AT_ONCE,
    }
}

/// Waits until everything that is wrong now has been told.
pub(super) async fn all_told(node: &Node) {
    let mut rounds = node.told.subscribe();
    let wanted = *rounds.borrow() + u64::from(LASTING);
    // The sender is in the node: it is there for as long as we are.
    let _ = rounds.wait_for(|rounds| *rounds >= wanted).await;
}

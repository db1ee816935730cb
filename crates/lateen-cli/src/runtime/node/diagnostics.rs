//! Problems of the configuration, told when they come and when they go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Diagnostic;

use super::Node;
use crate::runtime::excerpt;
use crate::runtime::messages::Event;

/// How often the control plane is asked; it is asked over a Unix socket and answers from memory.
const PERIOD: Duration = Duration::from_millis(100);
/// So many times in a row a problem must be there before it is told: what comes and goes within a moment is nobody's.
const LASTING: u32 = 2;
/// A file that cannot be read as it stands is told at once.
const AT_ONCE: u32 = 1;
/// The same for a selector without pods (a Sidecar's, a subset's), while pods are being made that may fit.
const LASTING_WITHOUT_PODS: u32 = 50;
/// Beyond this many lines for one change, the rest is counted.
const MAX_LINES: usize = 20;

/// Starts telling.
pub(super) fn start(node: &Arc<Node>) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        // Each with what it was, for when it is no more.
        let mut told: BTreeMap<String, Diagnostic> = BTreeMap::new();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let Ok(diagnostics) = node.api.diagnostics().await else { continue };
            let now: BTreeMap<String, Diagnostic> = diagnostics.into_iter().map(|it| (it.to_string(), it)).collect();
            seen = now.keys().map(|text| (text.clone(), seen.get(text).map_or(1, |times| times + 1))).collect();
            let is_starting = is_starting(&node);
            let mut new: Vec<(String, Diagnostic)> = now
                .iter()
                .filter(|(text, finding)| seen[*text] >= patience(finding, is_starting) && !told.contains_key(*text))
                .map(|(text, finding)| (text.clone(), finding.clone()))
                .collect();
            new.sort_by(|(_, one), (_, other)| {
                (&one.file, one.line, one.column).cmp(&(&other.file, other.line, other.column))
            });
            tell(&node, &new).await;
            for (_, finding) in told.iter().filter(|(text, _)| !now.contains_key(*text)).take(MAX_LINES) {
                node.tell(Event::Solved { text: excerpt::headline(finding) });
            }
            told.retain(|text, _| now.contains_key(text));
            told.extend(new);
            node.told.send_modify(|rounds| *rounds += 1);
        }
    });
}

/// With the lines that they are about, for which files are read.
async fn tell(node: &Node, new: &[(String, Diagnostic)]) {
    let findings: Vec<Diagnostic> = new.iter().take(MAX_LINES).map(|(_, finding)| finding.clone()).collect();
    let texts = tokio::task::spawn_blocking(move || findings.iter().map(excerpt::told).collect::<Vec<_>>());
    for text in texts.await.unwrap_or_default() {
        node.tell(Event::Problem { text });
    }
    if new.len() > MAX_LINES {
        let text = format!("and {} more problems (`lateen status` lists all)", new.len() - MAX_LINES);
        node.tell(Event::Problem { text });
    }
}

/// Pods are being made that a selector may be waiting for.
fn is_starting(node: &Node) -> bool {
    let pods = node.pods.all();
    pods.is_empty() || pods.iter().any(|pod| !pod.is_ready() && !pod.is_terminating())
}

fn patience(finding: &Diagnostic, is_starting: bool) -> u32 {
    let waits_for_pods = finding.code == "IST0173" || finding.code == "IST0101" && finding.field.contains("elector");
    match finding.code.as_str() {
        _ if waits_for_pods && is_starting => LASTING_WITHOUT_PODS,
        code if code.starts_with("IST") => LASTING,
        _ => AT_ONCE,
    }
}

/// Waits until everything that is wrong now has been told.
pub(super) async fn all_told(node: &Node) {
    let mut rounds = node.told.subscribe();
    let wanted = *rounds.borrow() + u64::from(LASTING);
    // The sender is in the node: it is there for as long as we are.
    let _ = rounds.wait_for(|rounds| *rounds >= wanted).await;
}

//! Retries that multiply along a chain of calls, and time-outs that leave them no time.

use lateen_api::scalar::Duration;
use serde_json::Value;

use crate::document::{Document, items, text};
use crate::report::Report;
use crate::world::{NETWORKING, World};

/// What a route retries without a word about it: Istio's default.
const DEFAULT_ATTEMPTS: u64 = 2;

pub(super) fn check(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "VirtualService") {
        for (index, rule) in items(&document.spec()["http"]).iter().enumerate() {
            time(document, rule, index, report);
            budget(document, rule, index, report);
        }
    }
}

fn duration(value: &Value) -> Option<std::time::Duration> {
    text(value).parse::<Duration>().ok().map(Into::into)
}

/// `timeout` covers all tries.
fn time(document: &Document, rule: &Value, index: usize, report: &mut Report) {
    let retries = &rule["retries"];
    let attempts = retries["attempts"].as_u64().unwrap_or(DEFAULT_ATTEMPTS);
    let (Some(timeout), Some(per_try)) = (duration(&rule["timeout"]), duration(&retries["perTryTimeout"])) else {
        return;
    };
    let needed = per_try.saturating_mul(u32::try_from(attempts + 1).unwrap_or(u32::MAX));
    if !timeout.is_zero() && attempts > 0 && timeout < needed {
        let fit = timeout.as_nanos() / per_try.as_nanos().max(1);
        let message = format!(
            "{attempts} retries of {} each need {needed:?}, and the timeout is {timeout:?}: {fit} of {} tries fit",
            text(&retries["perTryTimeout"]),
            attempts + 1
        );
        report.add(document, "LAT0202", &format!("spec.http[{index}].timeout"), message);
    }
}

/// So many tries of one request, and more, fall upon a service just when it fails.
const MANY: u64 = 5;

fn budget(document: &Document, rule: &Value, index: usize, report: &mut Report) {
    let attempts = rule["retries"]["attempts"].as_u64().unwrap_or(0);
    if attempts > MANY {
        let message = format!(
            "{attempts} retries: a service that fails gets up to {} times its requests, and each caller that retries, too, multiplies that",
            attempts + 1
        );
        report.add(document, "LAT0201", &format!("spec.http[{index}].retries.attempts"), message);
    }
}

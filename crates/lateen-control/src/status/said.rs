//! What a status says, and whether one says it already.

use jiff::Timestamp;
use lateen_api::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::Observed;

/// Istio's word for "what you wrote is in force".
const CONDITION: &str = "Reconciled";
/// A condition's message may be long, and nobody reads all of it.
const MAX_MESSAGE: usize = 2048;
/// So many messages at most.
const MAX_MESSAGES: usize = 32;

/// What there is to say of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    in_force: bool,
    reason: &'static str,
    message: String,
    messages: Vec<Value>,
    generation: Option<i64>,
}

impl Said {
    /// By what is wrong with it by itself and in the mesh, and whether it is in force there as it is written.
    pub(super) fn of(observed: &Observed, of_mesh: &[&Diagnostic], is_as_written: bool) -> Self {
        let is_refused = observed.found.iter().any(Diagnostic::is_error);
        // What stands in the mesh is then an earlier version, and so is what is wrong with that.
        let of_mesh = if is_refused { &[][..] } else { of_mesh };
        let found: Vec<&Diagnostic> = observed.found.iter().chain(of_mesh.iter().copied()).collect();
        let errors: Vec<String> = found.iter().filter(|it| it.is_error()).map(|it| told(it)).collect();
        let errors = errors.join("; ");
        let (reason, message) = match (is_refused, is_as_written) {
            (true, _) => ("Rejected", format!("the last good version, if there is one, is in force: {errors}")),
            (false, false) => ("NotInForce", errors),
            // Somebody should know of them all the same.
            (false, true) => ("InForce", errors),
        };
        Self {
            in_force: !is_refused && is_as_written,
            reason,
            message: cut(message),
            messages: found.iter().take(MAX_MESSAGES).map(|it| message_of(it)).collect(),
            generation: observed.generation,
        }
    }

    /// Whether a status says this; when the condition last changed is not ours to compare.
    pub(super) fn is_in(&self, status: &Value) -> bool {
        let Some(condition) = condition(status) else { return false };
        let messages = status["validationMessages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let field = |name: &str| condition[name].as_str().unwrap_or_default();
        field("status") == self.word()
            && field("reason") == self.reason
            && field("message") == self.message
            && messages == self.messages.as_slice()
            && generation(&condition["observedGeneration"]) == self.generation
            && generation(&status["observedGeneration"]) == self.generation
    }

    fn word(&self) -> &'static str {
        if self.in_force { "True" } else { "False" }
    }

    /// As it is written. The condition has changed now, unless it says what it said before.
    pub(super) fn status(&self, before: &Value, now: Timestamp) -> Value {
        let since = condition(before)
            .filter(|condition| condition["status"] == self.word())
            .and_then(|condition| condition["lastTransitionTime"].as_str())
            // Kubernetes writes whole seconds.
            .map_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), str::to_owned);
        let mut condition = json!({"type": CONDITION, "status": self.word(), "reason": self.reason,
            "message": self.message, "lastTransitionTime": since});
        let mut status = json!({"validationMessages": self.messages});
        if let Some(generation) = self.generation {
            condition["observedGeneration"] = json!(generation);
            status["observedGeneration"] = json!(generation);
        }
        status["conditions"] = json!([condition]);
        status
    }
}

fn condition(status: &Value) -> Option<&Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == CONDITION)
}

/// Istio writes such numbers as texts, too.
fn generation(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn told(found: &Diagnostic) -> String {
    if found.field.is_empty() { found.message.clone() } else { format!("{}: {}", found.field, found.message) }
}

fn cut(text: String) -> String {
    let end = (0..=MAX_MESSAGE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text[..end].to_owned()
}

/// Istio's `AnalysisMessageBase`.
fn message_of(found: &Diagnostic) -> Value {
    let level = match found.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    let mut message = json!({"type": {"code": found.code}, "level": level});
    if found.code.starts_with("IST") {
        let page = found.code.to_lowercase();
        message["documentationUrl"] = json!(format!("https://istio.io/latest/docs/reference/config/analysis/{page}/"));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str, severity: Severity) -> Diagnostic {
        let mut found = lateen_api::parse_documents("a", "kind: {", "default").diagnostics.remove(0);
        (found.code, found.severity) = (code.to_owned(), severity);
        (found.field, found.message) = ("spec.hosts".to_owned(), "is wrong".to_owned());
        found
    }

    fn observed(found: Vec<Diagnostic>) -> Observed {
        Observed { api_version: "networking.istio.io/v1".to_owned(), generation: Some(3), status: Value::Null, found }
    }

    #[test]
    fn a_status_says_what_is_in_force_and_why_not() {
        let now = Timestamp::UNIX_EPOCH;
        let said = Said::of(&observed(Vec::new()), &[], true);
        let good = said.status(&Value::Null, now);
        assert_eq!(good["conditions"][0]["status"], "True");
        assert_eq!(good["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!((&good["observedGeneration"], good["validationMessages"].as_array().unwrap().len()), (&json!(3), 0));
        let refused =
            Said::of(&observed(vec![found("LAT0006", Severity::Error)]), &[&found("IST0101", Severity::Error)], true);
        let status = refused.status(&good, now);
        assert_eq!(status["conditions"][0]["reason"], "Rejected");
        assert_eq!(status["validationMessages"], json!([{"type": {"code": "LAT0006"}, "level": "ERROR"}]));
        let waits = Said::of(&observed(Vec::new()), &[&found("IST0101", Severity::Error)], false).status(&good, now);
        assert_eq!(
            (&waits["conditions"][0]["reason"], &waits["conditions"][0]["message"]),
            (&json!("NotInForce"), &json!("spec.hosts: is wrong"))
        );
        let warned = Said::of(&observed(vec![found("LAT0005", Severity::Warning)]), &[], true).status(&good, now);
        assert_eq!(
            (&warned["conditions"][0]["status"], &warned["validationMessages"][0]["level"]),
            (&json!("True"), &json!("WARNING"))
        );
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let said = Said::of(&observed(vec![found("LAT0006", Severity::Error)]), &[], true);
        assert!(!said.is_in(&Value::Null));
        let mut status = said.status(&Value::Null, Timestamp::UNIX_EPOCH);
        assert!(said.is_in(&status));
        status["observedGeneration"] = json!("3");
        assert!(said.is_in(&status), "a number as a text");
        // The same condition of the next generation changed when it did before.
        let next =
            Said::of(&Observed { generation: Some(4), ..observed(vec![found("LAT0006", Severity::Error)]) }, &[], true);
        assert!(!next.is_in(&status));
        let next = next.status(&status, Timestamp::now());
        assert_eq!(next["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}

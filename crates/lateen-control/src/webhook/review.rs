//! One question and its answer: an AdmissionReview with a pod in it, and one with a patch.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_api::diagnostic::Subject as Named;
use serde_json::{Value, json};

use crate::inject::{self, Injected, Place, Settings, Subject};
use crate::store::Contents;

/// The answer, and what became of the pod.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) review: Value,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Injected,
    LeftAlone,
    Refused,
}

/// Answers.
///
/// # Errors
/// What was asked is no review of a pod.
pub(super) fn answer(asked: &Value, contents: &Contents, settings: &Settings) -> Result<Answer, String> {
    let request = &asked["request"];
    let uid = request["uid"].as_str().ok_or("an AdmissionReview has a request with a uid")?;
    let (response, outcome) =
        if is_pod(request) { pod(request, contents, settings) } else { (json!({"allowed": true}), Outcome::LeftAlone) };
    let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    review["response"]["uid"] = json!(uid);
    Ok(Answer { review, outcome })
}

/// A pod that is to be made; whatever else somebody has us asked about is none of ours.
fn is_pod(request: &Value) -> bool {
    request["kind"]["kind"] == "Pod"
        && request["kind"]["group"].as_str().is_none_or(str::is_empty)
        && request["operation"].as_str().is_none_or(|operation| operation == "CREATE")
        && request["subResource"].as_str().is_none_or(str::is_empty)
}

fn pod(request: &Value, contents: &Contents, settings: &Settings) -> (Value, Outcome) {
    let pod = &request["object"];
    // Whoever makes pods of a template names neither them nor their namespace.
    let namespace = request["namespace"].as_str().unwrap_or("default");
    let name = ["name", "generateName"].iter().find_map(|field| pod["metadata"][*field].as_str()).unwrap_or_default();
    let object = Named { kind: "Pod".to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
    let place = Place { object: Some(object), ..Place::nowhere("admission") };
    let asked = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    let injected = Subject::new(pod, namespace, None, place)
        .and_then(|subject| inject::inject(&subject, &asked, &contents.proxy_configs(), settings));
    match injected {
        Err(found) => {
            let told: Vec<String> = found.iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
            let message = format!("the proxy cannot be injected: {}", told.join("; "));
            tracing::warn!(namespace, pod = name, message);
            (
                json!({"allowed": false, "status": {"code": 400, "reason": "Invalid", "message": message}}),
                Outcome::Refused,
            )
        }
        Ok(Injected { refused: Some(why), .. }) => {
            tracing::debug!(namespace, pod = name, %why, "a pod is left alone");
            (json!({"allowed": true}), Outcome::LeftAlone)
        }
        Ok(Injected { pod: injected, warnings, .. }) => {
            let mut response = json!({"allowed": true, "patchType": "JSONPatch",
                "patch": STANDARD.encode(patch(pod, &injected).to_string())});
            if !warnings.is_empty() {
                // kubectl shows them.
                let told = warnings.iter().map(|it| format!("{}: {}", it.field, it.message));
                response["warnings"] = told.collect();
            }
            (response, Outcome::Injected)
        }
    }
}

/// What makes the one out of the other (RFC 6902): parts that differ, whole. Webhooks are asked one after another, so nobody
/// else's changes are overwritten.
fn patch(before: &Value, after: &Value) -> Value {
    let parts = [["metadata", "labels"], ["metadata", "annotations"]];
    let mut steps: Vec<Value> = parts
        .iter()
        .filter(|[of, field]| before[*of][*field] != after[*of][*field])
        .map(|[of, field]| json!({"op": "add", "path": format!("/{of}/{field}"), "value": after[*of][*field]}))
        .collect();
    let fields = after["spec"].as_object().into_iter().flatten();
    steps.extend(
        fields
            .filter(|(field, value)| before["spec"][field.as_str()] != **value)
            .map(|(field, value)| json!({"op": "add", "path": format!("/spec/{field}"), "value": value})),
    );
    Value::Array(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &Value) -> (Value, Outcome) {
        let mut request = request.clone();
        request["uid"] = json!("u");
        let asked = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let answer = answer(&asked, &Contents::default(), &Settings::on_kubernetes()).unwrap();
        assert_eq!(answer.review["response"]["uid"], "u");
        (answer.review["response"].clone(), answer.outcome)
    }

    fn request(metadata: &Value) -> Value {
        json!({"kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "shop",
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {"containers": [{"name": "app", "image": "a"}], "nodeSelector": {"a": "b"}}}})
    }

    #[test]
    fn a_pod_is_answered_with_what_is_added_to_it() {
        let (response, outcome) = ask(&request(&json!({"generateName": "web-"})));
        assert_eq!((&response["allowed"], outcome), (&json!(true), Outcome::Injected));
        let patch: Value =
            serde_json::from_slice(&STANDARD.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap();
        let paths: Vec<&str> = patch.as_array().unwrap().iter().map(|step| step["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/metadata/labels", "/metadata/annotations", "/spec/volumes", "/spec/initContainers"]);
        let settled = json!({"labels": {"sidecar.istio.io/inject": "false"}});
        let (response, outcome) = ask(&request(&settled));
        assert_eq!((response, outcome), (json!({"allowed": true, "uid": "u"}), Outcome::LeftAlone));
    }

    #[test]
    fn a_pod_that_cannot_be_injected_is_refused_with_the_reason() {
        let metadata = json!({"name": "web", "annotations": {"sidecar.istio.io/logLevel": "loud"}});
        let (response, outcome) = ask(&request(&metadata));
        assert_eq!((&response["allowed"], outcome), (&json!(false), Outcome::Refused));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("metadata.annotations[sidecar.istio.io/logLevel]: `loud` is not a log level"),
            "{message}"
        );
    }

    #[test]
    fn what_has_no_effect_is_a_warning_and_other_objects_pass() {
        let metadata = json!({"name": "web", "annotations": {"sidecar.istio.io/agentLogLevel": "x"}});
        assert!(ask(&request(&metadata)).0["warnings"][0].as_str().unwrap().contains("agentLogLevel"));
        let mut other = request(&json!({"name": "web"}));
        other["kind"]["kind"] = json!("Service");
        assert_eq!(ask(&other).1, Outcome::LeftAlone);
        assert!(answer(&json!({}), &Contents::default(), &Settings::default()).is_err());
    }
}

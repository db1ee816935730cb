//! Laying one part of a pod over another, by Kubernetes' rules for a strategic merge: mappings are merged field by field, lists
//! whose items have names are merged by them, other lists are replaced, and null takes a field away.

use serde_json::{Map, Value};

/// By which field items of a list are known (`patchMergeKey` in Kubernetes' types).
fn key_of(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "imagePullSecrets" | "env" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Lays a pod's part over a pod.
pub(super) fn merge(pod: &mut Value, part: &Value) {
    if let Some(part) = part.as_object() {
        for field in ["metadata", "spec"] {
            if let Some(value) = part.get(field) {
                merge_field(fields(pod), field, value);
            }
        }
    }
}

/// Lays one container over another.
pub(super) fn merge_container(container: &mut Value, over: &Value) {
    merge_fields(container, over);
}

fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it has just been made an object")
}

fn merge_fields(value: &mut Value, over: &Value) {
    let Some(over) = over.as_object() else { return };
    let into = fields(value);
    for (field, value) in over {
        merge_field(into, field, value);
    }
}

fn merge_field(into: &mut Map<String, Value>, field: &str, over: &Value) {
    match over {
        Value::Null => {
            into.shift_remove(field);
        }
        Value::Object(_) if is_one_of(field) => {
            into.insert(field.to_owned(), over.clone());
        }
        Value::Object(_) => merge_fields(into.entry(field).or_insert(Value::Null), over),
        Value::Array(items) => match key_of(field) {
            Some(key) => merge_list(into.entry(field).or_insert(Value::Null), key, items),
            None => {
                into.insert(field.to_owned(), over.clone());
            }
        },
        _ => {
            into.insert(field.to_owned(), over.clone());
        }
    }
}

/// Fields that say one of several things: half of one and half of another would say nothing. A probe or a handler is such.
fn is_one_of(field: &str) -> bool {
    matches!(field, "livenessProbe" | "readinessProbe" | "startupProbe" | "postStart" | "preStop" | "valueFrom")
}

fn merge_list(list: &mut Value, key: &str, over: &[Value]) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(items) = list.as_array_mut() else { return };
    for item in over {
        match items.iter_mut().find(|known| !item[key].is_null() && known[key] == item[key]) {
            // A volume or a variable of another sort takes the place of the one there is.
            Some(known) if key == "name" && !item["name"].is_null() && replaces(known, item) => *known = item.clone(),
            Some(known) => merge_fields(known, item),
            None => items.push(item.clone()),
        }
    }
}

/// Volumes and variables are of one sort each; containers are merged.
fn replaces(known: &Value, item: &Value) -> bool {
    let is_container = |value: &Value| value.get("image").is_some() || value.get("args").is_some();
    let sorts = |value: &Value| {
        let fields = value.as_object().into_iter().flat_map(Map::keys);
        fields.filter(|field| *field != "name").cloned().collect::<Vec<_>>()
    };
    !is_container(known) && !is_container(item) && sorts(known) != sorts(item)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_items_are_merged_and_others_replaced() {
        let mut pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "app", "image": "app:1", "args": ["a"], "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "name": "http"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "a"}], "nodeName": "n"}});
        let part = json!({"metadata": {"labels": {"x": "y"}}, "spec": {
            "containers": [{"name": "app", "args": ["b"], "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "other", "image": "o"}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}], "tolerations": [{"key": "b"}], "nodeName": null}});
        merge(&mut pod, &part);
        assert_eq!(
            pod,
            json!({"metadata": {"labels": {"app": "web", "x": "y"}}, "spec": {
                "containers": [{"name": "app", "image": "app:1", "args": ["b"],
                    "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}],
                    "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}]}, {"name": "other", "image": "o"}],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}], "tolerations": [{"key": "b"}]}})
        );
    }

    #[test]
    fn a_variable_by_value_takes_the_place_of_one_by_reference() {
        let mut container = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]});
        merge_container(&mut container, &json!({"env": [{"name": "A", "value": "1"}]}));
        assert_eq!(container["env"], json!([{"name": "A", "value": "1"}]));
    }
}

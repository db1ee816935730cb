//! `google.protobuf.FieldMask`, on JSON with the original field names.

use serde_json::{Map, Value};

/// `a.b,c`: paths of field names.
pub(super) fn parse(mask: &str) -> Vec<Vec<&str>> {
    mask.split(',').filter(|path| !path.is_empty()).map(|path| path.split('.').collect()).collect()
}

/// What the mask leaves of a message; nothing if none of its paths leads anywhere. A path may end in a list, but not go
/// through one.
pub(super) fn apply<'a, P: AsRef<[&'a str]>>(mask: &[P], message: &Value) -> Option<Value> {
    let Value::Object(fields) = message else { return None };
    let mut left = Map::new();
    for (name, value) in fields {
        let below: Vec<&[&str]> = mask.iter().filter_map(|path| path.as_ref().strip_prefix(&[name.as_str()])).collect();
        if below.iter().any(|path| path.is_empty()) {
            left.insert(name.clone(), value.clone());
        } else if !below.is_empty()
            && let Some(cut) = apply(&below, value)
        {
            left.insert(name.clone(), cut);
        }
    }
    if left.is_empty() {
        return None;
    }
    // A packed message stays one.
    if let Some(kind) = fields.get("@type") {
        left.shift_insert(0, "@type".to_owned(), kind.clone());
    }
    Some(Value::Object(left))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mask_leaves_what_its_paths_name() {
        let message = json!({"version_info": "1", "cluster": {"@type": "t", "name": "a", "load_assignment": {"endpoints": [{"x": 1}]}}});
        let cut = |mask| apply(&parse(mask), &message);
        assert_eq!(cut("version_info"), Some(json!({"version_info": "1"})));
        assert_eq!(cut("cluster.name"), Some(json!({"cluster": {"@type": "t", "name": "a"}})));
        assert_eq!(cut("cluster,version_info"), Some(message.clone()));
        assert_eq!(cut("cluster.load_assignment.endpoints.x"), None, "not through lists");
        assert_eq!(cut("nothing"), None);
    }
}

//! The objects of the running mesh, at the lines where they were written: the control plane tells file and line of each, and
//! where the file can be read here and still says the same, so do its rules.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::meta::Origin;
use lateen_api::parse::MAX_TEXT;
use lateen_api::{Kind, Object, parse_documents};
use lateen_control::store::ORIGIN_ANNOTATION;
use serde_json::Value;

use super::StateOption;

/// All of them.
pub(super) fn objects(state: &StateOption) -> anyhow::Result<Vec<Object>> {
    let control_plane = super::apply::running(state)?;
    super::block_on(async {
        let (mut objects, mut files) = (Vec::new(), Files::default());
        for kind in Kind::ALL {
            for json in control_plane.objects(*kind, None, None).await? {
                // What is in force has been read before.
                let read = lateen_api::parse_json("running mesh", &json, "default");
                objects.extend(read.into_iter().map(|object| files.placed(object, &json)));
            }
        }
        Ok(objects)
    })
}

/// What has been read of files, by name.
#[derive(Default)]
struct Files(HashMap<String, Vec<Object>>);

impl Files {
    /// The object at its place, as far as `json` tells of one.
    fn placed(&mut self, object: Object, json: &Value) -> Object {
        let told = json["metadata"]["annotations"][ORIGIN_ANNOTATION].as_str();
        let place = told.and_then(|told| told.rsplit_once(':'));
        let Some((file, line)) = place.and_then(|(file, line)| Some((file, line.parse().ok()?))) else { return object };
        let written = self.of(file).iter().find(|written| {
            // What has been saved and not been taken over is another thing.
            written.key() == object.key() && written.to_json().get("spec") == object.to_json().get("spec")
        });
        match written {
            Some(written) => written.clone().with_age(object.age()),
            None => object.with_origin(Origin::new(Arc::from(file), line)),
        }
    }

    fn of(&mut self, file: &str) -> &[Object] {
        self.0.entry(file.to_owned()).or_insert_with(|| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.len() > MAX_TEXT { Vec::new() } else { parse_documents(file, &text, "default").objects }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(spec: &Value, origin: &str) -> (Object, Value) {
        let json = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "web", "namespace": "default", "annotations": {ORIGIN_ANNOTATION: origin}},
            "spec": spec,
        });
        let object = lateen_api::parse_json("running mesh", &json, "default").expect("it is an object");
        (object, json)
    }

    #[test]
    fn an_object_is_found_at_its_line_and_its_rules_at_theirs() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("web.yaml").display().to_string();
        let text = "# first\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}}]\n";
        std::fs::write(&file, text).expect("it can be written");
        let spec = json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]});
        let place = |(object, json): (Object, Value)| {
            let placed = Files::default().placed(object, &json);
            (placed.origin().file.to_string(), placed.origin().line, placed.position_of("spec.http[0]").0)
        };
        assert_eq!(place(told(&spec, &format!("{file}:2"))), (file.clone(), 2, 8));
        let (_, line, rule) = place(told(&json!({"hosts": ["other"]}), &format!("{file}:2")));
        assert_eq!((line, rule), (2, 2), "the file says something else by now: the object's line is all there is");
        assert_eq!(place(told(&spec, "gone.yaml:7")).1, 7);
        assert_eq!(place(told(&spec, "an API server")).1, 0);
    }
}

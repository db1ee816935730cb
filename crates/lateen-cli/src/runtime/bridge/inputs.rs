//! The user's files before anything is started: can they be read, do their images have commands, and what do we add?

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use lateen_api::scalar::StringMatch;
use lateen_api::{Object, parse_documents};

use super::Options;
use crate::runtime::images::Images;
use crate::runtime::{GATEWAY, SYSTEM_NAMESPACE};

/// Files in a folder that are read, as the control plane reads them.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];

/// The inputs, checked.
pub(super) struct Inputs {
    /// Absolute paths: the user's and ours.
    pub(super) paths: Vec<PathBuf>,
    /// Where the app starts, `/productpage`.
    pub(super) landing: String,
}

/// Absolute paths of the inputs, and of a file of ours with what a mesh needs and the inputs do not bring.
///
/// What is wrong inside a document is left to the control plane, which goes on without it and reports it; an image
/// without a command ends the start, because the pod could never run.
pub(super) fn prepare(options: &Options, images: &Images) -> anyhow::Result<Inputs> {
    let mut objects = Vec::new();
    let mut inputs = Vec::new();
    for input in &options.inputs {
        let path = std::path::absolute(input)?;
        for file in files(input)? {
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            objects.extend(parse_documents(&file.display().to_string(), &text, "default").objects);
        }
        inputs.push(path);
    }
    check_images(&objects, images)?;
    let ours = options.state.run().join("mesh.yaml");
    fs::write(&ours, additions(&objects)).with_context(|| format!("write {}", ours.display()))?;
    inputs.push(ours);
    Ok(Inputs { paths: inputs, landing: landing(&objects) })
}

/// A path that a VirtualService at a gateway answers, to be shown as the address of the app.
fn landing(objects: &[Object]) -> String {
    let services = objects.iter().filter_map(|object| match object {
        Object::VirtualService(service) if service.spec.gateways.iter().any(|gateway| gateway != "mesh") => {
            Some(&service.spec)
        }
        _ => None,
    });
    let mut paths =
        services.flat_map(|service| &service.http).flat_map(|route| &route.matches).filter_map(|it| it.uri.as_ref());
    paths
        .find_map(|uri| match uri {
            StringMatch::Exact(path) | StringMatch::Prefix(path) => Some(path.clone()),
            StringMatch::Regex(_) => None,
        })
        .unwrap_or_else(|| "/".to_owned())
}

fn files(input: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let about = || format!("-f {}", input.display());
    if !fs::metadata(input).with_context(about)?.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(input).with_context(about)? {
        let path = entry.with_context(about)?.path();
        if path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_images(objects: &[Object], images: &Images) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for object in objects {
        let Object::Deployment(deployment) = object else { continue };
        let spec = &deployment.spec.template.spec;
        for container in spec.init_containers.iter().chain(&spec.containers) {
            // `auto` is filled in by the injector.
            if container.image.is_empty() || container.image == "auto" {
                continue;
            }
            if let Err(error) = images.command_for(container) {
                let (place, name) = (object.origin(), object.name());
                problems.push(format!("{place}: Deployment {name}, container `{}`: {error:#}", container.name));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

/// Kubernetes manifests for the namespaces and the ingress gateway, as far as the inputs have none of their own. The
/// namespace `default` takes part in the mesh unless the input says otherwise.
pub(crate) fn additions(objects: &[Object]) -> String {
    let namespaces: BTreeSet<&str> =
        objects.iter().filter(|object| matches!(object, Object::Namespace(_))).map(Object::name).collect();
    let mut text = String::from("# What `lateen up` adds to the files it is given.\n");
    if !namespaces.contains("default") {
        text.push_str(&namespace("default", "\n  labels: {istio-injection: enabled}"));
    }
    if !namespaces.contains(SYSTEM_NAMESPACE) {
        text.push_str(&namespace(SYSTEM_NAMESPACE, ""));
    }
    if !objects.iter().any(is_gateway) {
        text.push_str(&gateway());
    }
    text
}

fn namespace(name: &str, more: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{more}\n")
}

/// A Deployment or Service of the gateway's name, or one whose pods a Gateway that selects `istio: ingressgateway` finds.
fn is_gateway(object: &Object) -> bool {
    match object {
        Object::Deployment(deployment) => {
            let labels = &deployment.spec.template.metadata.labels;
            (object.namespace() == SYSTEM_NAMESPACE && object.name() == GATEWAY)
                || labels.get("istio").is_some_and(|value| value == "ingressgateway")
        }
        Object::Service(_) => object.namespace() == SYSTEM_NAMESPACE && object.name() == GATEWAY,
        _ => false,
    }
}

fn gateway() -> String {
    format!(
        r#"---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {GATEWAY}
  namespace: {SYSTEM_NAMESPACE}
---
apiVersion: v1
kind: Service
metadata:
  name: {GATEWAY}
  namespace: {SYSTEM_NAMESPACE}
  labels: {{app: {GATEWAY}, istio: ingressgateway}}
spec:
  selector: {{app: {GATEWAY}, istio: ingressgateway}}
  ports:
  - {{name: status-port, port: 15021, targetPort: 15021}}
  - {{name: http2, port: 80, targetPort: 8080}}
  - {{name: https, port: 443, targetPort: 8443}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {GATEWAY}
  namespace: {SYSTEM_NAMESPACE}
  labels: {{app: {GATEWAY}, istio: ingressgateway}}
spec:
  selector:
    matchLabels: {{app: {GATEWAY}, istio: ingressgateway}}
  template:
    metadata:
      labels: {{app: {GATEWAY}, istio: ingressgateway, sidecar.istio.io/inject: "true"}}
      annotations: {{inject.istio.io/templates: gateway}}
    spec:
      serviceAccountName: {GATEWAY}
      containers:
      - name: istio-proxy
        image: auto
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Object> {
        let parsed = parse_documents("test.yaml", text, "default");
        assert_eq!(parsed.diagnostics, []);
        parsed.objects
    }

    #[test]
    fn what_we_add_is_valid_and_left_out_where_the_input_has_its_own() {
        let all = additions(&[]);
        let kinds: Vec<String> = parsed(&all).iter().map(|object| object.key().to_string()).collect();
        assert_eq!(
            kinds,
            [
                "Namespace default",
                "Namespace istio-system",
                "ServiceAccount istio-system/istio-ingressgateway",
                "Service istio-system/istio-ingressgateway",
                "Deployment istio-system/istio-ingressgateway"
            ]
        );
        assert_eq!(parsed(&additions(&parsed(&all))), []);
        let own = parsed("apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n");
        assert!(!additions(&own).contains("istio-injection"));
    }

    #[test]
    fn an_image_without_a_command_is_told_with_its_place() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: apps/v1\nkind: Deployment\n\
                    metadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    \
                    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, image: 'web:1'}]}\n";
        let error = check_images(&parsed(text), &Images::default()).unwrap_err().to_string();
        assert!(error.starts_with("test.yaml:5: Deployment web, container `c`: no local command"), "{error}");
    }
}

//! Volumes of a pod as directories of the node, and where containers see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::Container;
use lateen_api::kubernetes::volume::{ObjectVolume, Volume};
use serde_json::Value;

use super::environment::{Fields, expand};
use crate::runtime::messages::Mount;
use crate::runtime::state_dir::write_atomically;

/// The ConfigMap that holds the mesh's root certificate, in every namespace (Istio's name).
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
const ROOT_FILE: &str = "root-cert.pem";
/// Where a proxy looks for its token and the root certificate; it gets both even if no volume of the pod says so.
const TOKEN_FOLDER: &str = "/var/run/secrets/tokens";
const ROOT_FOLDER: &str = "/var/run/secrets/istio";
const TOKEN_FILE: &str = "istio-token";

/// What the control plane gives a pod.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    pub(crate) root: String,
}

/// The volumes of one pod.
#[derive(Debug)]
pub(crate) struct Volumes {
    folder: PathBuf,
    by_name: BTreeMap<String, PathBuf>,
    /// Files that hold the token, to be written anew when it is renewed.
    tokens: Vec<PathBuf>,
}

impl Volumes {
    /// Makes the directories under `folder` and fills them.
    pub(crate) fn prepare(
        folder: &Path,
        volumes: &[Volume],
        fields: Fields<'_>,
        credentials: &Credentials,
    ) -> anyhow::Result<Self> {
        let mut made = Self { folder: folder.to_owned(), by_name: BTreeMap::new(), tokens: Vec::new() };
        for volume in volumes {
            let path = folder.join("volumes").join(&volume.name);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
            made.fill(&path, volume, fields, credentials).with_context(|| format!("volume {}", volume.name))?;
            made.by_name.insert(volume.name.clone(), path);
        }
        for (name, file, content) in
            [("tokens", TOKEN_FILE, &credentials.token), ("root", ROOT_FILE, &credentials.root)]
        {
            let path = folder.join("credentials").join(name);
            fs::create_dir_all(&path)?;
            write_atomically(&path.join(file), content.as_bytes())?;
        }
        made.tokens.push(folder.join("credentials/tokens").join(TOKEN_FILE));
        Ok(made)
    }

    /// Writes a new token wherever the old one is.
    pub(crate) fn renew(&self, token: &str) -> anyhow::Result<()> {
        for path in &self.tokens {
            write_atomically(path, token.as_bytes()).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// What a container sees where.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        is_proxy: bool,
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for wanted in &container.volume_mounts {
            let about = || format!("volumeMount {}", wanted.mount_path);
            let volume = self.by_name.get(&wanted.name);
            let volume =
                volume.with_context(|| format!("the pod has no volume {}", wanted.name)).with_context(about)?;
            let below = match &wanted.sub_path_expr {
                Some(expression) => expand(expression, environment),
                None => wanted.sub_path.clone(),
            };
            if Path::new(&below).components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("{}: `{below}` leads out of the volume", about());
            }
            let mut source = volume.join(&below);
            if below.is_empty() {
                source.clone_from(volume);
            } else if !source.exists() {
                fs::create_dir_all(&source)?;
            }
            mounts.push(Mount { source, target: wanted.mount_path.clone().into(), read_only: wanted.read_only });
        }
        if is_proxy {
            for (target, name) in [(TOKEN_FOLDER, "tokens"), (ROOT_FOLDER, "root")] {
                if !mounts.iter().any(|mount| mount.target == Path::new(target)) {
                    let source = self.folder.join("credentials").join(name);
                    mounts.push(Mount { source, target: target.into(), read_only: true });
                }
            }
        }
        // What lies in another mount comes after it.
        mounts.sort_by_key(|mount| mount.target.components().count());
        Ok(mounts)
    }

    fn fill(
        &mut self,
        path: &Path,
        volume: &Volume,
        fields: Fields<'_>,
        credentials: &Credentials,
    ) -> anyhow::Result<()> {
        let unsupported = [
            ("hostPath", volume.host_path.is_some()),
            ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
            ("csi", volume.csi.is_some()),
            ("nfs", volume.nfs.is_some()),
            ("ephemeral", volume.ephemeral.is_some()),
        ];
        if let Some((kind, _)) = unsupported.iter().find(|(_, is)| *is) {
            bail!("`{kind}` is not supported on one machine; use `emptyDir`");
        }
        if let Some(projected) = &volume.projected {
            for source in projected["sources"].as_array().map(Vec::as_slice).unwrap_or_default() {
                self.project(path, source, fields, credentials)?;
            }
        }
        if let Some(downward) = &volume.downward_api {
            downward_api(path, downward, fields)?;
        }
        if let Some(config_map) = &volume.config_map {
            objects(path, "ConfigMap", &config_map.name, config_map, credentials)?;
        }
        if let Some(secret) = &volume.secret {
            objects(path, "Secret", &secret.secret_name, secret, credentials)?;
        }
        Ok(())
    }

    fn project(
        &mut self,
        path: &Path,
        source: &Value,
        fields: Fields<'_>,
        credentials: &Credentials,
    ) -> anyhow::Result<()> {
        for (kind, source) in source.as_object().into_iter().flatten() {
            match kind.as_str() {
                "serviceAccountToken" => {
                    let file = path.join(source["path"].as_str().context("serviceAccountToken has no `path`")?);
                    write_atomically(&file, credentials.token.as_bytes())?;
                    self.tokens.push(file);
                }
                "downwardAPI" => downward_api(path, source, fields)?,
                "configMap" => {
                    let volume: ObjectVolume = serde_json::from_value(source.clone())?;
                    objects(path, "ConfigMap", &volume.name, &volume, credentials)?;
                }
                "secret" => {
                    let volume: ObjectVolume = serde_json::from_value(source.clone())?;
                    objects(path, "Secret", &volume.name, &volume, credentials)?;
                }
                other => bail!("projected source `{other}` is not supported on one machine"),
            }
        }
        Ok(())
    }
}

fn downward_api(path: &Path, source: &Value, fields: Fields<'_>) -> anyhow::Result<()> {
    for item in source["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let file = item["path"].as_str().context("an item of downwardAPI has no `path`")?;
        let field = item["fieldRef"]["fieldPath"].as_str().context("only `fieldRef` is supported in downwardAPI")?;
        write_atomically(&path.join(file), fields.get(field)?.as_bytes())?;
    }
    Ok(())
}

/// The one ConfigMap that exists here is that of the root certificate; what is optional may be missing.
fn objects(
    path: &Path,
    kind: &str,
    name: &str,
    volume: &ObjectVolume,
    credentials: &Credentials,
) -> anyhow::Result<()> {
    if kind == "ConfigMap" && name == ROOT_CONFIG_MAP {
        write_atomically(&path.join(ROOT_FILE), credentials.root.as_bytes())?;
    } else if !volume.optional {
        bail!("there is no {kind} {name}: on one machine there are no ConfigMaps and Secrets");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lateen_api::ObjectMeta;
    use lateen_api::kubernetes::PodSpec;
    use serde_json::json;

    use super::*;

    fn prepare(folder: &Path, volumes: Value) -> anyhow::Result<Volumes> {
        let volumes: Vec<Volume> = serde_json::from_value(volumes)?;
        let metadata = ObjectMeta::named("default", "web-1");
        let spec = PodSpec::default();
        let fields = Fields { metadata: &metadata, spec: &spec, address: "10.244.0.1" };
        let credentials = Credentials { token: "t1".to_owned(), root: "PEM".to_owned() };
        Volumes::prepare(folder, &volumes, fields, &credentials)
    }

    #[test]
    fn what_istios_sidecar_asks_for_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let token = json!({"serviceAccountToken": {"audience": "istio-ca", "path": "istio-token"}});
        let volumes = prepare(
            folder.path(),
            json!([
                {"name": "istio-token", "projected": {"sources": [token]}},
                {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
                {"name": "istio-podinfo", "downwardAPI": {"items": [
                    {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"name": "extra", "secret": {"secretName": "x", "optional": true}},
            ]),
        )
        .unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join("volumes").join(path)).unwrap();
        assert_eq!(read("istio-token/istio-token"), "t1");
        assert_eq!(read("istiod-ca-cert/root-cert.pem"), "PEM");
        assert_eq!(read("istio-podinfo/name"), "web-1");
        volumes.renew("t2").unwrap();
        assert_eq!(read("istio-token/istio-token"), "t2");
        let container: Container = serde_json::from_value(json!({
            "name": "c", "volumeMounts": [{"name": "istio-token", "mountPath": "/var/run/secrets/tokens"}]
        }))
        .unwrap();
        let mounts = volumes.mounts(&container, true, &BTreeMap::new()).unwrap();
        let targets: Vec<_> = mounts.iter().map(|mount| mount.target.display().to_string()).collect();
        assert_eq!(targets, [TOKEN_FOLDER, ROOT_FOLDER]);
        assert!(mounts[0].source.ends_with("volumes/istio-token"));
    }

    #[test]
    fn what_does_not_exist_here_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let told = |volumes| format!("{:#}", prepare(folder.path(), volumes).unwrap_err());
        assert!(
            told(json!([{"name": "v", "hostPath": {"path": "/"}}])).contains("volume v: `hostPath` is not supported")
        );
        assert!(told(json!([{"name": "v", "configMap": {"name": "c"}}])).contains("there is no ConfigMap c"));
    }
}

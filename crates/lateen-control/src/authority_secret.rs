//! The authority of a mesh on a cluster where nobody has given one: made once, and kept in the Secret `cacerts`, so that it outlives
//! the pod, and all replicas of the control plane have it in common.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use lateen_api::Kind;
use lateen_identity::CertificateAuthority;

use crate::authority::SECRET;
use crate::store::Store;

/// So long the Secret may take from the API server into the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns when the Secret is in the store; it is made if it is not there. Of several that make it at once, one is first, and all
/// take what that one has made.
///
/// # Errors
/// The API server does not let us, or the Secret does not come.
pub(crate) async fn ensure(
    client: &Client,
    store: &Store,
    namespace: &str,
    trust_domain: &str,
    state: &Path,
) -> anyhow::Result<()> {
    let there = || store.contents().get(Kind::Secret, namespace, SECRET).is_some();
    if there() {
        return Ok(());
    }
    let (folder, domain) = (state.join("first-ca"), trust_domain.to_owned());
    let data = tokio::task::spawn_blocking(move || made(&folder, &domain)).await??;
    let secret = Secret {
        metadata: kube::api::ObjectMeta { name: Some(SECRET.to_owned()), ..Default::default() },
        data: Some(data.into_iter().map(|(name, bytes)| (name.to_owned(), ByteString(bytes))).collect()),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => tracing::info!("the mesh has a certificate authority of its own, in Secret {namespace}/{SECRET}"),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).with_context(|| format!("create Secret {namespace}/{SECRET}")),
    }
    let mut contents = store.watch();
    let comes = contents.wait_for(|contents| contents.get(Kind::Secret, namespace, SECRET).is_some());
    let came = tokio::time::timeout(PATIENCE, comes).await;
    came.with_context(|| format!("Secret {namespace}/{SECRET} does not come back from the API server"))??;
    Ok(())
}

/// A new authority, in the form of one that is plugged in; nothing of it stays in the folder.
fn made(folder: &Path, trust_domain: &str) -> anyhow::Result<[(&'static str, Vec<u8>); 4]> {
    CertificateAuthority::load_or_create(folder, trust_domain, SystemTime::now())?;
    let read = |name: &str| std::fs::read(folder.join(name)).with_context(|| format!("read {name}"));
    let (root, key) = (read("root-cert.pem")?, read("ca-key.pem")?);
    std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok([("ca-cert.pem", root.clone()), ("ca-key.pem", key), ("cert-chain.pem", root.clone()), ("root-cert.pem", root)])
}

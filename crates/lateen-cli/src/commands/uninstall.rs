//! `lateen uninstall`: an installation off the cluster again.

use std::process::ExitCode;

use clap::Args;
use lateen_control::manifest::tag::TAG_LABEL;
use lateen_control::manifest::{self, NAMESPACE, REVISION_LABEL};
use serde_json::Value;

use super::install::installed;
use super::{Misuse, WRONG};
use crate::cluster::Connection;
use crate::cluster::apply::{self, named, reference};
use crate::runtime::paint::{FAINT, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which control plane.
    #[arg(long, value_name = "NAME", default_value = manifest::DEFAULT_REVISION)]
    revision: String,
    /// With all that is left when no control plane is there any more: the mesh's kinds with all objects of them, its certificate
    /// authority, its certificates in every namespace, and the namespace istio-system.
    #[arg(long)]
    purge: bool,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        let client = arguments.connection.client().await?;
        let revision = &arguments.revision;
        let webhooks = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
        let tags = apply::list(&client, webhooks, &format!("{REVISION_LABEL}={revision},{TAG_LABEL}")).await?;
        let tags: Vec<&str> = tags.iter().filter_map(|it| it["metadata"]["labels"][TAG_LABEL].as_str()).collect();
        if let Some(tag) = tags.first() {
            return Err(Misuse::of(format!(
                "revision {revision} has the tag {tag}: `lateen tag set {tag} --revision OTHER` gives it to another, \
                 `lateen tag remove {tag}` takes it away"
            )));
        }
        let mut gone = installed(&client, revision).await?;
        if gone.is_empty() && !arguments.purge {
            anstream::eprintln!("revision {revision} is not installed");
            return Ok(ExitCode::from(WRONG));
        }
        if arguments.purge {
            let others = apply::list(&client, ("apps/v1", "Deployment"), "app.kubernetes.io/part-of=lateen").await?;
            let label = |it: &Value| it["metadata"]["labels"][REVISION_LABEL].as_str().unwrap_or_default().to_owned();
            if let Some(other) = others.iter().map(label).find(|other| other != revision) {
                return Err(Misuse::of(format!("revision {other} is there, too: uninstall it first")));
            }
            gone.extend(remains(&client).await?);
        }
        for object in &gone {
            if apply::delete(&client, object, arguments.dry_run).await? {
                if arguments.dry_run {
                    anstream::println!("{} would be removed", named(object));
                } else {
                    anstream::eprintln!("{FAINT}{} removed{PLAIN}", named(object));
                }
            }
        }
        let end = if arguments.dry_run { "would be removed (dry run)" } else { "removed" };
        anstream::println!("revision {revision}: {} objects {end}", gone.len());
        Ok(ExitCode::SUCCESS)
    })
}

/// What outlives control planes.
async fn remains(client: &kube::Client) -> anyhow::Result<Vec<Value>> {
    let roots = apply::list(client, ("v1", "ConfigMap"), "istio.io/config=true").await?;
    let mut found: Vec<Value> = roots.into_iter().filter(|it| it["metadata"]["name"] == "istio-ca-root-cert").collect();
    let definitions = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    found.extend(
        apply::list(client, definitions, "app.kubernetes.io/name=lateen,app.kubernetes.io/component=crds").await?,
    );
    found.push(reference("v1", "Namespace", None, NAMESPACE));
    Ok(found)
}

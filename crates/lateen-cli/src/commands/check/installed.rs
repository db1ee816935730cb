//! Whether the mesh on a cluster is well: its kinds, its control planes, its webhooks, its authority, who asks for it, and what it
//! says of the objects that it was given.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use lateen_api::schema;
use lateen_control::leader::LEASE;
use lateen_control::manifest::tag::TAG_LABEL;
use lateen_control::manifest::{self, DEFAULT_REVISION, NAMESPACE, REVISION_LABEL};
use x509_parser::pem::Pem;

use super::{Report, Verdict};
use crate::cluster::apply::{get, list, named, reference};
use crate::cluster::health::{self, Standing};

/// Of this command.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const KINDS: &str = "kinds";
const CONTROL_PLANE: &str = "control plane";
const MESH: &str = "mesh";
/// A root that ends sooner than this wants a successor by now.
const SOON: u64 = 30 * 24 * 3600;
/// So many objects are named at most.
const MOST_NAMED: usize = 5;

pub(super) async fn look(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    kinds(client, report).await?;
    let deployments = list(client, ("apps/v1", "Deployment"), "app.kubernetes.io/part-of=lateen").await?;
    let revisions: BTreeSet<String> = deployments
        .iter()
        .filter(|it| it["spec"]["selector"]["matchLabels"]["app"] == "lateend")
        .filter_map(|it| it["metadata"]["labels"][REVISION_LABEL].as_str().map(str::to_owned))
        .collect();
    if revisions.is_empty() {
        let verdict = Verdict::bad("no control plane is installed", "lateen install");
        report.note(CONTROL_PLANE, "a control plane is installed", verdict);
        return Ok(());
    }
    for revision in &revisions {
        control_plane(client, revision, report).await?;
    }
    let webhooks =
        list(client, ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"), REVISION_LABEL).await?;
    let mut asked_for: BTreeSet<String> = revisions.clone();
    for webhook in &webhooks {
        asked_for.extend(webhook["metadata"]["labels"][TAG_LABEL].as_str().map(str::to_owned));
        let verdict = match health::webhooks(client, webhook).await? {
            Standing::Healthy => Verdict::Good,
            Standing::Waits(why) => {
                Verdict::bad(why, "look at the log of the control plane: kubectl logs -n istio-system -l app=lateend")
            }
        };
        report.note(CONTROL_PLANE, format!("{} has the control plane's certificates", named(webhook)), verdict);
    }
    report.note(CONTROL_PLANE, "one replica speaks for all", leader(client).await?);
    report.note(CONTROL_PLANE, "the mesh's authority goes on", authority(client).await?);
    report.note(MESH, "whoever asks for a proxy asks for one that there is", namespaces(client, &asked_for).await?);
    report.note(MESH, "all objects are in force", objects(client).await?);
    Ok(())
}

async fn kinds(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let mut absent = Vec::new();
    for kind in schema::kinds() {
        let name = format!("{}.{}", kind.plural(), kind.group());
        let found = get(client, &reference("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name)).await?;
        let served: Vec<String> = found
            .iter()
            .flat_map(|it| it["spec"]["versions"].as_array().into_iter().flatten())
            .filter(|version| version["served"] == true)
            .filter_map(|version| version["name"].as_str().map(str::to_owned))
            .collect();
        if !kind.versions().iter().any(|version| served.iter().any(|it| it == version)) {
            absent.push(name);
        }
    }
    let verdict = if absent.is_empty() {
        Verdict::Good
    } else {
        Verdict::bad(
            format!("not defined: {}", absent.join(", ")),
            "lateen install, or kubectl apply -f deploy/kubernetes/crds.yaml",
        )
    };
    report.note(KINDS, "the kinds of the mesh are defined", verdict);
    Ok(())
}

async fn control_plane(client: &Client, revision: &str, report: &mut Report) -> anyhow::Result<()> {
    let deployment = health::control_plane(revision);
    let verdict = match health::deployment(client, &deployment).await? {
        Standing::Healthy => Verdict::Good,
        Standing::Waits(why) => {
            Verdict::bad(why, format!("kubectl describe -n {NAMESPACE} pod -l app=lateend,{REVISION_LABEL}={revision}"))
        }
    };
    report.note(CONTROL_PLANE, format!("revision {revision} is healthy"), verdict);
    let record = reference("v1", "ConfigMap", Some(NAMESPACE), &manifest::record_name(revision));
    let version = get(client, &record).await?.and_then(|it| it["data"]["version"].as_str().map(str::to_owned));
    let verdict = match version.as_deref() {
        Some(VERSION) => Verdict::Good,
        Some(version) => Verdict::doubtful(
            format!("it is {version}, and this command is {VERSION}"),
            format!(
                "lateen upgrade{}",
                if revision == DEFAULT_REVISION { String::new() } else { format!(" --revision {revision}") }
            ),
        ),
        None => Verdict::doubtful("it was not installed by `lateen install`", "lateen install, with the same settings"),
    };
    report.note(CONTROL_PLANE, format!("revision {revision} is of this version"), verdict);
    Ok(())
}

async fn leader(client: &Client) -> anyhow::Result<Verdict> {
    let lease = get(client, &reference("coordination.k8s.io/v1", "Lease", Some(NAMESPACE), LEASE)).await?;
    let holder = lease.as_ref().and_then(|it| it["spec"]["holderIdentity"].as_str()).unwrap_or_default();
    Ok(if holder.is_empty() {
        let fix = "look at the log of the control plane for why it cannot write the Lease: kubectl logs -n istio-system -l app=lateend";
        Verdict::bad(format!("nobody holds the Lease {LEASE}: no status is written"), fix)
    } else {
        Verdict::Good
    })
}

async fn authority(client: &Client) -> anyhow::Result<Verdict> {
    const HOW: &str = "docs/identity.md says how a root is replaced without an outage (lateen ca)";
    let Some(secret) = get(client, &reference("v1", "Secret", Some(NAMESPACE), "cacerts")).await? else {
        let fix = "it is made by the first control plane that runs; docs/identity.md says how to give one";
        return Ok(Verdict::bad(format!("there is no Secret {NAMESPACE}/cacerts"), fix));
    };
    let pem = ["root-cert.pem", "ca.crt"].iter().find_map(|key| secret["data"][*key].as_str());
    let Some(pem) = pem.and_then(|text| STANDARD.decode(text).ok()) else {
        return Ok(Verdict::bad(format!("Secret {NAMESPACE}/cacerts has no root-cert.pem"), HOW));
    };
    let ends = Pem::iter_from_buffer(&pem).filter_map(Result::ok).filter_map(|pem| {
        let certificate = pem.parse_x509().ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(until(ends.min(), now).unwrap_or_else(|why| Verdict::bad(why, HOW)))
}

/// By when the first of the roots ends.
fn until(end: Option<u64>, now: u64) -> Result<Verdict, String> {
    match end {
        None => Err("there is no certificate among the roots".to_owned()),
        Some(end) if end <= now => Err("a root has ended".to_owned()),
        Some(end) if end - now < SOON => Err(format!("a root ends in {} days", (end - now) / 86_400)),
        Some(_) => Ok(Verdict::Good),
    }
}

async fn namespaces(client: &Client, there: &BTreeSet<String>) -> anyhow::Result<Verdict> {
    let mut lost = Vec::new();
    for namespace in list(client, ("v1", "Namespace"), "").await? {
        let labels = &namespace["metadata"]["labels"];
        let wanted = match labels["istio-injection"].as_str() {
            Some("enabled") => Some(DEFAULT_REVISION),
            Some(_) => None,
            None => labels[REVISION_LABEL].as_str(),
        };
        if let Some(wanted) = wanted.filter(|wanted| !there.contains(*wanted)) {
            lost.push(format!("{} asks for {wanted}", namespace["metadata"]["name"].as_str().unwrap_or_default()));
        }
    }
    Ok(if lost.is_empty() {
        Verdict::Good
    } else {
        let fix = "pods there get no proxy: label the namespace with a revision or tag that there is (lateen tag list)";
        Verdict::bad(format!("namespaces: {}", lost.join(", ")), fix)
    })
}

async fn objects(client: &Client) -> anyhow::Result<Verdict> {
    let mut refused = Vec::new();
    for kind in schema::kinds() {
        for object in list(client, (&kind.api_version(), kind.name()), "").await? {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let mut failed = conditions.filter(|it| it["type"] == "Reconciled" && it["status"] == "False");
            if let Some(condition) = failed.next() {
                refused.push(format!("{}: {}", named(&object), condition["message"].as_str().unwrap_or_default()));
            }
        }
    }
    Ok(if refused.is_empty() {
        Verdict::Good
    } else {
        let more = refused.len().saturating_sub(MOST_NAMED);
        refused.truncate(MOST_NAMED);
        let more = if more == 0 { String::new() } else { format!("\n     and {more} more") };
        Verdict::doubtful(
            format!("{}{more}", refused.join("\n     ")),
            "mend them: the last good version of each, if there is one, is in force",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_ends_soon_is_told() {
        assert_eq!(until(Some(1000 + SOON), 1000), Ok(Verdict::Good));
        assert_eq!(until(Some(1000 + 3 * 86_400), 1000), Err("a root ends in 3 days".to_owned()));
        assert!(until(Some(1000), 1000).is_err() && until(None, 1000).is_err());
    }
}

//! `lateen install` and `lateen upgrade`: the objects of an installation onto a cluster, step by step, each waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use lateen_control::manifest::{self, INSTALL_LABEL, NAMESPACE, Objects, Values};
use serde_json::Value;

use super::Misuse;
use super::manifest::Choice;
use crate::cluster::Connection;
use crate::cluster::apply::{self, Outcome, named, reference};
use crate::cluster::health;
use crate::runtime::paint::{FAINT, GOOD, PLAIN};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Args)]
struct How {
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for all of it to be healthy, in seconds; 0 not to wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Kinds of which an installation has objects, the ones first that have others made.
pub(super) const KINDS: [(&str, &str); 12] = [
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "ServiceAccount"),
];

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let values = arguments.choice.values()?;
    let record = manifest::record(&values, arguments.choice.profile(), &arguments.choice.pairs());
    super::block_on(async {
        let client = arguments.how.connection.client().await?;
        Installation { client, values, record, how: &arguments.how }.run("installed").await
    })
}

/// The same settings as before, with those of the call over them, in this program's version.
pub(super) fn upgrade(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        let client = arguments.how.connection.client().await?;
        let revision = arguments.choice.revision.as_deref().unwrap_or(manifest::DEFAULT_REVISION);
        let name = manifest::record_name(revision);
        let before = apply::get(&client, &reference("v1", "ConfigMap", Some(NAMESPACE), &name)).await?;
        let before = before.ok_or_else(|| {
            Misuse::of(format!("revision {revision} has not been installed by this command: `lateen install` does it"))
        })?;
        let choice =
            with_before(&before, &arguments.choice).with_context(|| format!("ConfigMap {NAMESPACE}/{name}"))?;
        let values = choice.values()?;
        let record = manifest::record(&values, choice.profile(), &choice.pairs());
        Installation { client, values, record, how: &arguments.how }.run("upgraded").await
    })
}

fn with_before(record: &Value, now: &Choice) -> anyhow::Result<Choice> {
    let text = |field: &str| record["data"][field].as_str().with_context(|| format!("it has no `{field}`"));
    let mut set: Vec<(String, String)> = serde_json::from_str(text("set")?).context("its `set`")?;
    set.extend(now.set.iter().cloned());
    let profile = now.profile.clone().map_or_else(|| text("profile").map(str::to_owned), Ok)?;
    Ok(Choice { profile: Some(profile), set, revision: now.revision.clone() })
}

struct Installation<'a> {
    client: Client,
    values: Values,
    record: Value,
    how: &'a How,
}

impl Installation<'_> {
    async fn run(&self, done: &str) -> anyhow::Result<ExitCode> {
        let start = Instant::now();
        let objects = Objects::new(&self.values).map_err(anyhow::Error::msg)?;
        health::version(&self.client).await.context("the cluster")?;
        let mut outcomes = Outcomes { is_dry: self.how.dry_run, counts: BTreeMap::new() };
        self.apply(&objects.foundation, &mut outcomes).await?;
        let definitions: Vec<&Value> = objects.foundation.iter().filter(|it| it["kind"] != "Namespace").collect();
        self.wait("the kinds of the mesh", async || health::definitions(&self.client, &definitions).await).await?;
        self.apply(&objects.control_plane, &mut outcomes).await?;
        self.apply(std::slice::from_ref(&self.record), &mut outcomes).await?;
        let control_plane = health::control_plane(&self.values.revision);
        self.wait("the control plane", async || health::deployment(&self.client, &control_plane).await).await?;
        self.apply(&objects.webhooks, &mut outcomes).await?;
        for webhooks in &objects.webhooks {
            self.wait("the webhook that injects pods", async || health::webhooks(&self.client, webhooks).await).await?;
        }
        self.apply(&objects.gateways, &mut outcomes).await?;
        for gateway in objects.gateways.iter().filter(|it| it["kind"] == "Deployment") {
            self.wait("the ingress gateway", async || health::deployment(&self.client, gateway).await).await?;
        }
        self.remove_others(&objects, &mut outcomes).await?;
        let counts = outcomes.told();
        if self.how.dry_run {
            anstream::println!("{counts} (dry run)");
        } else {
            let seconds = start.elapsed().as_secs_f32();
            let revision = &self.values.revision;
            anstream::println!("{GOOD}revision {revision} is {done}{PLAIN}: {counts}, in {seconds:.1} s");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn apply(&self, objects: &[Value], outcomes: &mut Outcomes) -> anyhow::Result<()> {
        for object in objects {
            outcomes.note(object, apply::apply(&self.client, object, self.how.dry_run).await?);
        }
        Ok(())
    }

    async fn wait(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> anyhow::Result<health::Standing>,
    ) -> anyhow::Result<()> {
        if self.how.dry_run || self.how.timeout == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(self.how.timeout);
        health::until_healthy(what, deadline, look).await
    }

    /// What an earlier installation of this revision had, and this one has not.
    async fn remove_others(&self, objects: &Objects, outcomes: &mut Outcomes) -> anyhow::Result<()> {
        let wanted: BTreeSet<String> = objects.all().chain([&self.record]).map(named).collect();
        for object in installed(&self.client, &self.values.revision).await? {
            if !wanted.contains(&named(&object)) && apply::delete(&self.client, &object, self.how.dry_run).await? {
                outcomes.note(&object, Outcome::Removed);
            }
        }
        Ok(())
    }
}

/// All objects of an installation, in the order in which they are best removed.
pub(super) async fn installed(client: &Client, label: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for kind in KINDS {
        found.extend(apply::list(client, kind, &format!("{INSTALL_LABEL}={label}")).await?);
    }
    Ok(found)
}

/// What became of the objects.
struct Outcomes {
    is_dry: bool,
    counts: BTreeMap<Outcome, usize>,
}

impl Outcomes {
    fn note(&mut self, object: &Value, outcome: Outcome) {
        *self.counts.entry(outcome).or_default() += 1;
        match outcome {
            Outcome::Unchanged => {}
            _ if self.is_dry => anstream::println!("{} would be {}", named(object), outcome.word()),
            _ => anstream::eprintln!("{FAINT}{} {}{PLAIN}", named(object), outcome.word()),
        }
    }

    fn told(&self) -> String {
        let each: Vec<String> =
            self.counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.word())).collect();
        if each.is_empty() { "nothing to do".to_owned() } else { each.join(", ") }
    }
}

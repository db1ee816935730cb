//! `lateen tag`: names that namespaces ask for, and that stand for a revision, so that changing revisions changes one object.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use kube::Client;
use lateen_control::manifest::tag::{self, TAG_LABEL};
use lateen_control::manifest::{self, DEFAULT_REVISION, INSTALL_LABEL, REVISION_LABEL};
use serde_json::Value;

use super::install::installed;
use super::{Misuse, WRONG};
use crate::cluster::Connection;
use crate::cluster::apply::{self, reference};
use crate::cluster::health::{self, control_plane};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Have a tag stand for a revision, from now on.
    Set {
        tag: String,
        #[arg(long, value_name = "NAME")]
        revision: String,
    },
    /// Show the tags, and what each stands for.
    List,
    /// Take a tag away: pods that ask for it get no proxy any more.
    Remove { tag: String },
}

/// So long a control plane may take to put its certificates into a new tag.
const PATIENCE: Duration = Duration::from_secs(60);
const WEBHOOKS: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        let client = arguments.connection.client().await?;
        match &arguments.command {
            Command::Set { tag, revision } => set(&client, tag, revision).await,
            Command::List => list(&client).await,
            Command::Remove { tag } => remove(&client, tag).await,
        }
    })
}

async fn set(client: &Client, tag: &str, revision: &str) -> anyhow::Result<ExitCode> {
    if !manifest::is_name(tag) {
        return Err(Misuse::of(format!("`{tag}` is no name: lower case letters, digits and dashes, at most 40")));
    }
    if apply::get(client, &control_plane(revision)).await?.is_none() {
        return Err(Misuse::of(format!("there is no control plane of revision {revision}")));
    }
    let own = reference(WEBHOOKS.0, WEBHOOKS.1, None, &manifest::webhook_configuration(tag));
    if apply::get(client, &own).await?.is_some() {
        let also = if tag == DEFAULT_REVISION { ", which namespaces with istio-injection=enabled mean" } else { "" };
        return Err(Misuse::of(format!(
            "{tag} is the name of a revision{also}: uninstall that first, or take another name"
        )));
    }
    let objects = tag::objects(tag, revision);
    for object in &objects {
        apply::apply(client, object, false).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    for webhooks in objects.iter().filter(|object| object["kind"] == WEBHOOKS.1) {
        let look = async || health::webhooks(client, webhooks).await;
        health::until_healthy("the tag's webhook", deadline, look).await?;
    }
    anstream::println!("tag {tag} stands for revision {revision}");
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client) -> anyhow::Result<ExitCode> {
    let found = apply::list(client, WEBHOOKS, TAG_LABEL).await?;
    let label = |it: &Value, key: &str| it["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
    anstream::println!("{:<20} REVISION", "TAG");
    for tag in found {
        anstream::println!("{:<20} {}", label(&tag, TAG_LABEL), label(&tag, REVISION_LABEL));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(client: &Client, tag: &str) -> anyhow::Result<ExitCode> {
    let objects = installed(client, &format!("tag.{tag}")).await?;
    if objects.is_empty() {
        anstream::eprintln!("there is no tag {tag} ({INSTALL_LABEL}=tag.{tag})");
        return Ok(ExitCode::from(WRONG));
    }
    for object in &objects {
        apply::delete(client, object, false).await?;
    }
    anstream::println!("tag {tag} is gone");
    Ok(ExitCode::SUCCESS)
}

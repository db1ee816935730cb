//! A Kubernetes cluster as an administrator has it: by a kubeconfig, to install the mesh on and to take it off again.

pub(crate) mod apply;
pub(crate) mod health;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The kubeconfig [default: $KUBECONFIG or ~/.kube/config, else the pod's own account].
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// Its context [default: the current one].
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
}

impl Connection {
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => {
                Config::infer().await.context("there is no kubeconfig, and this is no pod; name one by --kubeconfig")?
            }
        };
        Client::try_from(config).context("the cluster cannot be reached")
    }
}

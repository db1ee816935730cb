//! A stock Envoy in the place of our proxy: started as `lateen-proxy` is, it gets a certificate, serves it to the Envoy as
//! Istio's agent does, and has the Envoy follow the control plane. Beside it lie `envoy`, the program, and `api-type`, which
//! of the two forms of the protocol it is to speak (`GRPC`, `DELTA_GRPC`).

mod bootstrap;
mod certificate;
mod secrets;

use std::os::linux::net::SocketAddrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Where the Envoy finds its secrets: an abstract socket, so that nothing is left behind.
const SECRETS: &str = "envoy-agent";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let kind = std::env::args().nth(1).context("which kind of proxy?")?;
    let member = Member::from_environment(&kind)?;
    let (identity, trust) = certificate::obtain(&member).await?;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(SECRETS)?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    tokio::spawn(secrets::serve(tokio::net::UnixListener::from_std(listener)?, identity, trust));

    let here = std::env::current_exe()?;
    let beside = |name: &str| here.with_file_name(name);
    let api_type = std::fs::read_to_string(beside("api-type")).context("api-type")?;
    let bootstrap = bootstrap::of(&member, api_type.trim()).await?;
    let mut envoy = Command::new(beside("envoy"))
        .args(["--config-yaml", &bootstrap.to_string()])
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
        .kill_on_drop(true)
        .spawn()
        .context("envoy")?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        status = envoy.wait() => bail!("the Envoy has ended: {}", status?),
        _ = terminated.recv() => Ok(()),
    }
}

/// What the injector tells a proxy about itself.
struct Member {
    kind: String,
    pod: String,
    namespace: String,
    account: String,
    address: String,
    trust_domain: String,
    /// `host:port` of the control plane.
    control_plane: String,
    token: String,
    roots: PathBuf,
    labels: serde_json::Value,
    /// Of sockets that the redirect rules are to leave alone.
    mark: Option<u32>,
}

impl Member {
    fn from_environment(kind: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
        let token = "/var/run/secrets/tokens/istio-token";
        Ok(Self {
            kind: kind.to_owned(),
            pod: variable("POD_NAME")?,
            namespace: variable("POD_NAMESPACE")?,
            account: variable("SERVICE_ACCOUNT")
                .ok()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            address: variable("INSTANCE_IP")?,
            trust_domain: variable("TRUST_DOMAIN")?,
            control_plane: variable("PILOT_DISCOVERY")?,
            token: std::fs::read_to_string(token).context(token)?.trim().to_owned(),
            roots: "/var/run/secrets/istio/root-cert.pem".into(),
            labels: serde_json::from_str(&variable("LATEEN_LABELS")?).context("LATEEN_LABELS")?,
            mark: variable("LATEEN_SOCKET_MARK").ok().map(|mark| mark.parse()).transpose()?,
        })
    }
}

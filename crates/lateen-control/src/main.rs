//! `lateend`: the control plane.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use ipnet::IpNet;
use lateen_control::external_ca::ExternalCa;
use lateen_control::inject::Settings;
use lateen_control::keys;
use lateen_control::serve::{self, Options};
use lateen_control::token_review::ApiServer;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Memory that is free goes back to the kernel within a moment, by a thread of its own: reading a big mesh, and proxies that
/// all come at once, take several times what serving them does.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[expect(unsafe_code, reason = "SAFETY: jemalloc reads its options from a pointer of this name to a C string")]
pub static MALLOC_CONF: &[u8; 84] =
    b"background_thread:true,max_background_threads:1,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// The control plane of a Lateen mesh.
#[derive(Debug, Parser)]
#[command(name = "lateend", version)]
struct Arguments {
    /// YAML files and folders to read and follow; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Where keys, applied objects, pods and the API's socket are.
    #[arg(long, env = "LATEEN_STATE_DIR", value_name = "DIR")]
    state_dir: PathBuf,
    /// A folder with a certificate authority to be used: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem and, where
    /// there are revocation lists, ca-crl.pem; or tls.crt, tls.key, ca.crt [default: the Secret cacerts, or one of our own].
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// HOST:PORT of an authority (istio.v1.auth.IstioCertificateService) that signs workloads' certificates in place of ours.
    #[arg(long, value_name = "ADDR", requires = "ca_roots")]
    ca_address: Option<String>,
    /// Whose certificate that authority has, and who vouches for what it signs, PEM.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_roots: Option<PathBuf>,
    /// Our token for that authority.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_token: Option<PathBuf>,
    /// Our certificate for that authority, PEM.
    #[arg(long, value_name = "FILE", requires = "ca_client_key")]
    ca_client_certificate: Option<PathBuf>,
    /// The key of our certificate for that authority, PEM.
    #[arg(long, value_name = "FILE", requires = "ca_client_certificate")]
    ca_client_key: Option<PathBuf>,
    /// Whose certificates the SPIFFE bundle endpoints of `caCertificates` have, PEM [default: the public authorities].
    #[arg(long, value_name = "FILE")]
    bundle_ca: Option<PathBuf>,
    /// Watch the objects at Kubernetes' API server, in place of files, and have it ask us to inject its pods.
    #[arg(long, conflicts_with = "file")]
    kubernetes: bool,
    /// Kubernetes' API server, which is asked about tokens that are not ours [default with --kubernetes:
    /// https://kubernetes.default.svc].
    #[arg(long, value_name = "URL", default_value_if("kubernetes", "true", "https://kubernetes.default.svc"))]
    kubernetes_api: Option<String>,
    /// Whose certificate the API server has, PEM.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")]
    kubernetes_ca: PathBuf,
    /// Our own token for the API server.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token")]
    kubernetes_token: PathBuf,
    /// A file that names OpenID Connect issuers whose tokens callers may show (docs/identity.md).
    #[arg(long, value_name = "FILE")]
    caller_issuers: Option<PathBuf>,
    /// A file with Istio's MeshConfig.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Address for TLS discovery and certificates, and for metrics.
    #[arg(long, alias = "address", value_name = "ADDR", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Plaintext discovery, on loopback only; 0 for any port, as with all ports.
    #[arg(long, value_name = "PORT", default_value_t = 15010)]
    xds_port: u16,
    /// Discovery and certificates over TLS.
    #[arg(long, value_name = "PORT", default_value_t = 15012)]
    grpc_port: u16,
    /// Metrics, and debug pages for callers on loopback.
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    metrics_port: u16,
    /// Console and the reading part of the API, on loopback only.
    #[arg(long, value_name = "PORT", default_value_t = 15080)]
    console_port: u16,
    /// The webhook that injects pods, with --kubernetes.
    #[arg(long, value_name = "PORT", default_value_t = 15017)]
    webhook_port: u16,
    /// Our revision: pods and namespaces that ask for another are not injected, and MutatingWebhookConfigurations that are
    /// labelled istio.io/rev with it are given our authority's certificates.
    #[arg(long, value_name = "NAME", default_value = "default")]
    revision: String,
    /// Image of the proxies that are injected.
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// Image of the container that redirects their traffic.
    #[arg(long, value_name = "IMAGE")]
    init_image: Option<String>,
    /// When these are pulled: Always, IfNotPresent or Never [default: as the cluster does].
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// A Secret that injected pods need to pull them; may be repeated.
    #[arg(long, value_name = "SECRET")]
    image_pull_secret: Vec<String>,
    /// HOST:PORT of this control plane, as pods reach it [default: lateend.istio-system.svc:15012].
    #[arg(long, value_name = "ADDR")]
    discovery_address: Option<String>,
    /// Where applied objects are kept [default: applied, in the state directory].
    #[arg(long, value_name = "DIR")]
    applied_dir: Option<PathBuf>,
    /// Where pods with their status are written by whoever runs them [default: pods, in the state directory].
    #[arg(long, value_name = "DIR")]
    pods_dir: Option<PathBuf>,
    /// The API's Unix socket [default: lateend.sock, in the state directory].
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// A network that keys of issuers may be fetched from though it is the machine's own, link-local or a cloud's; may be
    /// repeated, or a list.
    #[arg(long, env = "LATEEN_JWKS_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    jwks_allow: Vec<IpNet>,
    /// Certificates (PEM) that servers of keys may have, beside those of the public authorities.
    #[arg(long, env = "LATEEN_JWKS_CA", value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
    /// How many seconds old keys get before they are fetched anew.
    #[arg(long, env = "LATEEN_JWKS_REFRESH", value_name = "SECONDS", default_value_t = 1200)]
    jwks_refresh: u64,
    /// error, warn, info, debug or trace; or per part, such as lateen_control::push=debug.
    #[arg(long, value_name = "LEVEL", default_value = "warn,audit=info")]
    log_level: EnvFilter,
    /// Log as JSON, one object a line.
    #[arg(long)]
    log_json: bool,
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        let usual = if arguments.kubernetes { Settings::on_kubernetes() } else { Settings::default() };
        let injection = Settings {
            revision: arguments.revision,
            proxy_image: arguments.proxy_image.unwrap_or_else(|| usual.proxy_image.clone()),
            init_image: arguments.init_image.unwrap_or_else(|| usual.init_image.clone()),
            image_pull_policy: arguments.image_pull_policy,
            image_pull_secrets: arguments.image_pull_secret,
            discovery_address: arguments.discovery_address.unwrap_or_else(|| usual.discovery_address.clone()),
            ..usual
        };
        Self {
            paths: arguments.file,
            state_dir: arguments.state_dir,
            ca_dir: arguments.ca_dir,
            external_ca: arguments.ca_address.zip(arguments.ca_roots).map(|(address, roots)| ExternalCa {
                address,
                roots,
                token: arguments.ca_token,
                certificate: arguments.ca_client_certificate.zip(arguments.ca_client_key),
            }),
            bundle_ca: arguments.bundle_ca,
            kubernetes: arguments.kubernetes_api.map(|url| ApiServer {
                url,
                ca: arguments.kubernetes_ca,
                token: arguments.kubernetes_token,
            }),
            watch_kubernetes: arguments.kubernetes,
            caller_issuers: arguments.caller_issuers,
            mesh_config: arguments.mesh_config,
            address: arguments.listen,
            xds_port: arguments.xds_port,
            grpc_port: arguments.grpc_port,
            metrics_port: arguments.metrics_port,
            console_port: arguments.console_port,
            webhook_port: arguments.webhook_port,
            applied: arguments.applied_dir,
            pods: arguments.pods_dir,
            socket: arguments.api_socket,
            injection,
            keys: keys::Options {
                allowed: arguments.jwks_allow,
                trusted: arguments.jwks_ca,
                refresh: Duration::from_secs(arguments.jwks_refresh.max(1)),
            },
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let filter = std::mem::take(&mut arguments.log_level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if arguments.log_json {
        log.json().init()
    } else {
        log.init()
    }
    // Before anything answers, so that a signal in between stops us in order too.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut running = serve::start(arguments.into()).await?;
    let webhook = running.webhook.map(|address| format!(" webhook={address}")).unwrap_or_default();
    let ready = format!(
        "lateend ready xds={} grpc={} metrics={} console={}{webhook} socket={}",
        running.xds,
        running.grpc,
        running.metrics,
        running.console,
        running.socket.display()
    );
    writeln!(std::io::stdout(), "{ready}").context("say that we are ready")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        failed = running.failed() => return failed,
    }
    running.stop().await;
    Ok(())
}

//! The command line: what there is, and which file does it.

mod analyze;
mod apply;
mod authz;
mod ca;
mod check;
mod columns;
mod completion;
mod dashboard;
mod delete;
mod describe;
mod down;
mod drain;
mod edges;
mod exec;
mod explain;
mod get;
mod in_force;
mod inject;
mod install;
mod logs;
mod manifest;
mod pods;
mod proxies;
mod proxy_config;
mod proxy_status;
mod resources;
mod stat;
mod status;
mod tag;
mod tap;
mod test;
mod token;
mod top;
mod traffic;
mod translate;
mod uninstall;
mod up;
mod validate;
mod world;
mod zones;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::runtime::state_dir::StateDir;

/// The thing asked about is wrong.
pub(crate) const WRONG: u8 = 1;
/// The call is wrong; clap ends with the same code.
const MISUSED: u8 = 2;

/// The call is wrong in a way that clap does not know of.
#[derive(Debug)]
struct Misuse(String);

impl Misuse {
    fn of(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// A service mesh that speaks Istio's API.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a mesh on this machine.
    Up(up::Arguments),
    /// End the mesh on this machine.
    Down(down::Arguments),
    /// Show the mesh on this machine.
    Status(status::Arguments),
    /// Open the console of the mesh on this machine, with the right to change things.
    Dashboard(dashboard::Arguments),
    /// Create or change objects in the running mesh.
    Apply(apply::Arguments),
    /// Remove objects from the running mesh.
    Delete(delete::Arguments),
    /// Show objects of the running mesh.
    Get(get::Arguments),
    /// Install the mesh on a Kubernetes cluster.
    Install(install::Arguments),
    /// Bring an installation to this program's version, with the settings that it has.
    Upgrade(install::Arguments),
    /// Take an installation off its cluster.
    Uninstall(uninstall::Arguments),
    /// Say whether a cluster can take the mesh, and whether the mesh on it is well.
    Check(check::Arguments),
    /// Have names stand for revisions of the control plane.
    Tag(tag::Arguments),
    /// Print what is installed on a cluster.
    Manifest(manifest::Arguments),
    /// Put proxies into the pods of files, as the injector of a mesh does.
    Inject(inject::Arguments),
    /// Say what is wrong, or surprising, in files or in the running mesh.
    Analyze(analyze::Arguments),
    /// Say whether objects keep the rules of their kinds.
    Validate(validate::Arguments),
    /// Test what becomes of requests, on files.
    Test(test::Arguments),
    /// Say what becomes of a request and why, or what a message code means.
    Explain(Box<explain::Arguments>),
    /// Tell what the mesh makes of a workload or a service, and because of which objects.
    Describe(describe::Arguments),
    /// Show which proxies run what they should.
    #[command(alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// Show the configuration that a proxy holds.
    #[command(alias = "pc")]
    ProxyConfig(proxy_config::Arguments),
    /// Show what a proxy would be told because of files.
    Translate(translate::Arguments),
    /// Show the certificate authority, or replace its root.
    Ca(ca::Arguments),
    /// Show what each workload serves, how reliably and how fast.
    Stat(stat::Arguments),
    /// Watch who calls whom, busiest first.
    Top(top::Arguments),
    /// Watch requests while they pass.
    Tap(Box<tap::Arguments>),
    /// Show who calls whom, how often, how reliably, how fast, and whether by mutual TLS.
    Edges(edges::Arguments),
    /// Have the connections to a pod made anew.
    Drain(drain::Arguments),
    /// Make tokens by which others than pods join the mesh.
    Token(token::Arguments),
    /// Ask who may do what.
    Authz(authz::Arguments),
    /// Run a command in a container.
    Exec(exec::Arguments),
    /// Show what containers have written.
    Logs(logs::Arguments),
    /// Write what a shell needs to complete calls of this program; see its `--help`.
    #[command(after_help = completion::HOW)]
    Completion(completion::Arguments),
    /// Show the version of this program.
    Version,
}

/// For people, or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Where the mesh on this machine keeps its state.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateOption {
    /// Directory of the mesh's state [default: $LATEEN_STATE_DIR, $XDG_RUNTIME_DIR/lateen, /run/lateen or
    /// /tmp/lateen-<uid>].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StateOption {
    pub(crate) fn open(&self) -> anyhow::Result<StateDir> {
        // Not clap's business: its usage lines would ask for the option where the variable is set.
        let variable = std::env::var_os("LATEEN_STATE_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        StateDir::choose(self.state_dir.as_ref().or(variable.as_ref()).map(PathBuf::as_path))
    }
}

/// A pod by name, and one of its containers.
#[derive(Debug, Clone, Args)]
pub(crate) struct PodChoice {
    /// Name of the pod, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment.
    pod: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Container [default: the pod's first one that is not a proxy].
    #[arg(short, long)]
    container: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(arguments) => up::run(arguments),
        Command::Down(arguments) => down::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Dashboard(arguments) => dashboard::run(&arguments),
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Delete(arguments) => delete::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Install(arguments) => install::run(&arguments),
        Command::Upgrade(arguments) => install::upgrade(&arguments),
        Command::Uninstall(arguments) => uninstall::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Tag(arguments) => tag::run(&arguments),
        Command::Manifest(arguments) => manifest::run(&arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Describe(arguments) => describe::run(&arguments),
        Command::ProxyStatus(arguments) => proxy_status::run(&arguments),
        Command::ProxyConfig(arguments) => proxy_config::run(&arguments),
        Command::Translate(arguments) => translate::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Stat(arguments) => stat::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Edges(arguments) => edges::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Authz(arguments) => authz::run(&arguments),
        Command::Exec(arguments) => exec::run(arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Version => {
            anstream::println!("lateen {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        anstream::eprintln!("{}error:{} {error:#}", crate::runtime::paint::ERROR, crate::runtime::paint::PLAIN);
        ExitCode::from(if error.is::<Misuse>() { MISUSED } else { WRONG })
    })
}

/// Runs a conversation with the control plane.
fn block_on<T>(conversation: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(conversation)
}

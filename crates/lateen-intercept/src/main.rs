//! `lateen-intercept`: what the init container of a pod runs.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use lateen_intercept::rules::{self, Redirect, Selection, State};

/// Sends the TCP traffic of this network namespace through the proxy.
///
/// Short options are those of istio-iptables.
#[derive(Debug, Parser)]
#[command(name = "lateen-intercept", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put the rules in force, in place of those from an earlier call.
    Apply(Options),
    /// Exit 0 if the rules are in force as `apply` with these options would put them, else 1.
    Check(Options),
    /// Remove the rules.
    Clean,
}

#[derive(Debug, Args)]
struct Options {
    /// The proxy's port for what arrives.
    #[arg(short = 'z', long, default_value_t = 15006, value_parser = port)]
    inbound_port: u16,
    /// The proxy's port for what the app sends.
    #[arg(short = 'p', long, default_value_t = 15001, value_parser = port)]
    outbound_port: u16,
    /// User the proxy runs as.
    #[arg(short = 'u', long, default_value_t = 1337)]
    proxy_uid: u32,
    /// Group the proxy runs as.
    #[arg(short = 'g', long, default_value_t = 1337)]
    proxy_gid: u32,
    /// Mark on the proxy's sockets; 0 for none.
    #[arg(long, default_value_t = 1337)]
    proxy_mark: u32,
    /// How to intercept.
    #[arg(short = 'm', long, default_value = "REDIRECT", value_parser = ["REDIRECT"])]
    mode: String,
    /// Ports whose arriving traffic is redirected, comma separated; `*` for all.
    #[arg(short = 'b', long, default_value = "*", value_parser = ports_or_all)]
    include_inbound_ports: Selection<u16>,
    /// Ports whose arriving traffic is not redirected; only with all ports included.
    #[arg(short = 'd', long, default_value = "", value_parser = ports)]
    exclude_inbound_ports: List<u16>,
    /// Peers whose traffic is left alone both ways: the node, which checks the pod's health and answers for its names.
    #[arg(long, default_value = "", value_parser = nets, env = "LATEEN_EXCLUDE_PEERS")]
    exclude_peers: List<IpNet>,
    /// Destinations whose traffic is redirected when it leaves; `*` for all.
    #[arg(short = 'i', long, default_value = "*", value_parser = nets_or_all)]
    include_outbound_cidrs: Selection<IpNet>,
    /// Destinations whose traffic is not redirected.
    #[arg(short = 'x', long, default_value = "", value_parser = nets)]
    exclude_outbound_cidrs: List<IpNet>,
    /// Destination ports whose traffic is redirected wherever it goes.
    #[arg(short = 'q', long, default_value = "", value_parser = ports)]
    include_outbound_ports: List<u16>,
    /// Destination ports whose traffic is not redirected.
    #[arg(short = 'o', long, default_value = "", value_parser = ports)]
    exclude_outbound_ports: List<u16>,
    /// Interfaces whose traffic is left alone.
    #[arg(short = 'c', long, default_value = "", value_parser = interfaces)]
    exclude_interfaces: List<String>,
    /// Interfaces of virtual machines in the pod: what arrives at them is what they send.
    #[arg(short = 'k', long, default_value = "", value_parser = interfaces)]
    reroute_interfaces: List<String>,
}

/// A comma-separated list; a type of its own so that it is one value of one option.
#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

fn list<T>(text: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<List<T>, String> {
    let items = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    items.map(item).collect::<Result<_, _>>().map(List)
}

fn or_all<T>(text: &str, list: impl Fn(&str) -> Result<List<T>, String>) -> Result<Selection<T>, String> {
    if text.trim() == "*" { Ok(Selection::All) } else { Ok(Selection::Only(list(text)?.0)) }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port (1 to 65535)")),
        Ok(port) => Ok(port),
    }
}

fn net(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| format!("`{text}` is not a CIDR such as 10.0.0.0/8"))
}

fn interface(text: &str) -> Result<String, String> {
    if text.len() < 16 { Ok(text.to_owned()) } else { Err(format!("`{text}` is longer than the 15 bytes of a name")) }
}

fn ports(text: &str) -> Result<List<u16>, String> {
    list(text, port)
}

fn ports_or_all(text: &str) -> Result<Selection<u16>, String> {
    or_all(text, ports)
}

fn nets(text: &str) -> Result<List<IpNet>, String> {
    list(text, net)
}

fn nets_or_all(text: &str) -> Result<Selection<IpNet>, String> {
    or_all(text, nets)
}

fn interfaces(text: &str) -> Result<List<String>, String> {
    list(text, interface)
}

impl From<Options> for Redirect {
    fn from(options: Options) -> Self {
        Self {
            inbound_port: options.inbound_port,
            outbound_port: options.outbound_port,
            proxy_uid: Some(options.proxy_uid),
            proxy_gid: Some(options.proxy_gid),
            proxy_mark: (options.proxy_mark != 0).then_some(options.proxy_mark),
            inbound_ports: options.include_inbound_ports,
            exclude_inbound_ports: options.exclude_inbound_ports.0,
            exclude_peers: options.exclude_peers.0,
            outbound_nets: options.include_outbound_cidrs,
            exclude_outbound_nets: options.exclude_outbound_cidrs.0,
            include_outbound_ports: options.include_outbound_ports.0,
            exclude_outbound_ports: options.exclude_outbound_ports.0,
            exclude_interfaces: options.exclude_interfaces.0,
            reroute_interfaces: options.reroute_interfaces.0,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lateen-intercept: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn run(command: Command) -> anyhow::Result<ExitCode> {
    const HINT: &str = "the rules need CAP_NET_ADMIN and a kernel with nf_tables";
    match command {
        Command::Apply(options) => {
            Redirect::from(options).apply().context(HINT)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Clean => {
            let text = if rules::clean().context(HINT)? { "removed" } else { "nothing to remove" };
            println!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(options) => {
            let (text, code) = match Redirect::from(options).check().context(HINT)? {
                State::InForce => ("the rules are in force", ExitCode::SUCCESS),
                State::Missing => ("there are no rules", ExitCode::FAILURE),
                State::Different => ("there are rules, but others than asked for", ExitCode::FAILURE),
            };
            println!("{text}");
            Ok(code)
        }
    }
}

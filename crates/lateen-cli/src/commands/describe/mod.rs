//! `lateen describe`: what the mesh makes of one workload or service: its ports, the rules and policies that hold for it, where
//! each of them stands.

mod page;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use lateen_explain::World;
use lateen_mesh::{
    DestinationRule, Mesh, MtlsMode, Origin, ProxyKind, Service, VirtualService, Workload, host, selects,
};
use serde::Serialize;

use super::world::WorldOptions;
use super::{Misuse, Output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A workload: its services and ports, mutual TLS, policies.
    #[command(visible_aliases = ["po", "workload"])]
    Pod(Of),
    /// A service: its ports and endpoints, the rules for it, the gateways that lead to it.
    #[command(visible_alias = "svc")]
    Service(Of),
}

#[derive(Debug, Args)]
struct Of {
    /// NAME or NAME.NAMESPACE; of a pod also its Deployment or app, of a service also its host.
    name: String,
    #[command(flatten)]
    world: WorldOptions,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// An object, and where it stands.
#[derive(Debug, Serialize)]
struct Place {
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    name: String,
    namespace: String,
    ready: bool,
    /// `sidecar`, `gateway` or `none`.
    proxy: &'static str,
    identity: String,
    ports: Vec<Port>,
    services: Vec<ServicePage>,
    policies: Vec<Policy>,
}

/// A port on which a workload takes requests.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: u16,
    protocol: String,
    /// `name:port`; empty where no service has it.
    service: String,
    mtls: &'static str,
    /// What decides that; none where it is the default.
    mtls_by: Option<Place>,
}

#[derive(Debug, Serialize)]
struct Policy {
    /// ALLOW, DENY, AUDIT, CUSTOM, or JWT for a RequestAuthentication.
    action: &'static str,
    #[serde(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServicePage {
    host: String,
    object: Place,
    ports: Vec<ServicePort>,
    rules: Vec<Rule>,
    routes: Vec<Routes>,
}

#[derive(Debug, Serialize)]
struct ServicePort {
    number: u16,
    name: String,
    protocol: String,
    endpoints: usize,
}

/// A DestinationRule for a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    objects: Vec<Place>,
    /// The host that it names, where that is a wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    has_policy: bool,
    subsets: Vec<Subset>,
}

#[derive(Debug, Serialize)]
struct Subset {
    name: String,
    /// How many of the endpoints in question are in it.
    members: usize,
}

/// A VirtualService that speaks for a service or leads to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Routes {
    object: Place,
    hosts: Vec<String>,
    gateways: Vec<String>,
    http: usize,
    tls: usize,
    tcp: usize,
    /// It is for other hosts, and sends some of their requests here.
    leads_here: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (of, shown) = match &arguments.what {
        What::Pod(of) => {
            let world = of.world.open()?;
            let found = world.workload(&of.name, &of.world.namespace).map_err(|why| Misuse::of(why.to_string()))?;
            let pod = Pod::of(&world.mesh, found);
            (of, (serde_json::to_value(&pod)?, page::pod(&pod)))
        }
        What::Service(of) => {
            let world = of.world.open()?;
            let found = service(&world, &of.name, &of.world.namespace)?;
            let service = ServicePage::of(&world.mesh, &found, None);
            (of, (serde_json::to_value(&service)?, page::service(&service)))
        }
    };
    match of.output {
        Output::Json => anstream::println!("{:#}", shown.0),
        Output::Table => anstream::print!("{}", shown.1),
    }
    Ok(ExitCode::SUCCESS)
}

/// A service by its name, or by its host.
fn service(world: &World, name: &str, namespace: &str) -> anyhow::Result<Arc<Service>> {
    let (bare, own) = name.split_once('.').unwrap_or((name, namespace));
    let services = world.mesh.services();
    let named = |service: &&Arc<Service>| *service.name == *bare && *service.namespace == *own;
    let found = services.iter().find(|service| *service.host == *name).or_else(|| services.iter().find(named));
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = services.iter().map(|service| &*service.name).collect();
        let hint = match lateen_api::similar::did_you_mean(bare, &known) {
            Some(meant) => format!(", did you mean `{meant}`?"),
            None => String::new(),
        };
        Misuse::of(format!("there is no service `{bare}` in namespace `{own}`{hint}"))
    })
}

impl Place {
    fn of(origin: &Origin) -> Self {
        let at = origin.file.as_ref().map_or_else(String::new, |file| format!("{file}:{}", origin.line));
        Self { object: format!("{} {}/{}", origin.kind.name(), origin.namespace, origin.name), at }
    }
}

impl Pod {
    fn of(mesh: &Mesh, workload: &Workload) -> Self {
        let Workload { name, namespace, service_account, .. } = workload;
        let services = mesh.services().iter().filter(|service| {
            let mut endpoints = mesh.endpoints(service).iter();
            endpoints.any(|endpoint| (&endpoint.workload.namespace, &endpoint.workload.name) == (namespace, name))
        });
        let policies = mesh.authorization(workload);
        let lists = [
            ("CUSTOM", &policies.custom),
            ("AUDIT", &policies.audit),
            ("DENY", &policies.deny),
            ("ALLOW", &policies.allow),
        ];
        let tokens = mesh.request_authentications(workload);
        let tokens = tokens.iter().map(|it| Policy { action: "JWT", place: Place::of(&Origin::of(it)) });
        let policies = lists.into_iter().flat_map(|(action, list)| {
            list.iter().map(move |policy| Policy { action, place: Place::of(&policy.origin) })
        });
        Self {
            name: name.to_string(),
            namespace: namespace.to_string(),
            ready: workload.ready,
            proxy: match workload.proxy {
                ProxyKind::None => "none",
                ProxyKind::Sidecar => "sidecar",
                ProxyKind::Gateway => "gateway",
            },
            identity: format!("spiffe://{}/ns/{namespace}/sa/{service_account}", mesh.config().trust_domain),
            ports: ports(mesh, workload),
            services: services.map(|service| ServicePage::of(mesh, service, Some(workload))).collect(),
            policies: policies.chain(tokens).collect(),
        }
    }
}

fn ports(mesh: &Mesh, workload: &Workload) -> Vec<Port> {
    let modes = mesh.mtls(workload);
    let of = |port: &lateen_mesh::InboundPort| Port {
        port: port.port,
        protocol: port.protocol.to_string(),
        service: port.service.as_ref().map_or_else(String::new, |it| format!("{}:{}", it.name, port.service_port)),
        mtls: match modes.mode(port.port) {
            _ if workload.proxy == ProxyKind::None => "none: there is no proxy",
            MtlsMode::Disable => "DISABLE",
            MtlsMode::Permissive => "PERMISSIVE",
            MtlsMode::Strict => "STRICT",
        },
        mtls_by: mesh.mtls_origin(workload, port.port).as_ref().map(Place::of),
    };
    mesh.inbound_ports(workload).iter().map(of).collect()
}

impl ServicePage {
    /// `member`: the endpoint in question; none: all of them.
    fn of(mesh: &Mesh, service: &Service, member: Option<&Workload>) -> Self {
        let endpoints = mesh.endpoints(service);
        let mut members: Vec<&Workload> = match member {
            Some(member) => vec![member],
            None => endpoints.iter().map(|endpoint| &*endpoint.workload).collect(),
        };
        members.dedup_by_key(|member| (&member.namespace, &member.name));
        let rules = mesh.destination_rules().filter(|rule| host::is_subset_of(&service.host, &rule.host));
        let domain = &mesh.config().domain;
        let routes = mesh.virtual_services().iter().filter_map(|routes| {
            let speaks = routes.speaks_for(&service.host);
            let leads = routes.destinations(domain).any(|host| *host == *service.host);
            (speaks || leads).then(|| Routes::of(routes, !speaks))
        });
        Self {
            host: service.host.to_string(),
            object: Place::of(&service.origin),
            ports: service
                .ports
                .iter()
                .map(|port| ServicePort {
                    number: port.number,
                    name: port.name.to_string(),
                    protocol: port.protocol.to_string(),
                    endpoints: endpoints.port(port.number).len(),
                })
                .collect(),
            rules: rules.map(|rule| Rule::of(rule, &service.host, &members)).collect(),
            routes: routes.collect(),
        }
    }
}

impl Rule {
    fn of(rule: &DestinationRule, host: &str, members: &[&Workload]) -> Self {
        let subset = |subset: &lateen_api::networking::destination_rule::Subset| Subset {
            name: subset.name.clone(),
            members: members.iter().filter(|member| selects(&subset.labels, &member.labels)).count(),
        };
        Self {
            objects: rule.origins.iter().map(Place::of).collect(),
            host: if *rule.host == *host { String::new() } else { rule.host.clone() },
            has_policy: rule.traffic_policy.is_some(),
            subsets: rule.subsets.iter().map(subset).collect(),
        }
    }
}

impl Routes {
    fn of(routes: &VirtualService, leads_here: bool) -> Self {
        Self {
            object: Place::of(&routes.origin),
            hosts: routes.hosts.clone(),
            gateways: routes.gateways.clone(),
            http: routes.http.len(),
            tls: routes.tls.len(),
            tcp: routes.tcp.len(),
            leads_here,
        }
    }
}

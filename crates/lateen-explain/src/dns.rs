//! Where the name of a host leads: to a service of the mesh, by the search path that Kubernetes gives to pods, or outside.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lateen_api::similar::did_you_mean;
use lateen_mesh::{Registry, Resolution, Service, host};

use crate::journey::Place;
use crate::question::{Misunderstood, Url};
use crate::world::{World, place};

/// What an address outside stands for here (RFC 5737): which it is, only its DNS knows.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// More aliases of aliases than anybody writes.
const MOST_ALIASES: usize = 8;

/// Where a name leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) address: IpAddr,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) said: String,
    pub(crate) place: Option<Place>,
}

/// The host of `url`, as a pod of `namespace` resolves it.
pub(crate) fn resolve(world: &World, url: &Url, namespace: &str) -> Result<Resolved, Misunderstood> {
    if let Ok(address) = url.host.parse::<IpAddr>() {
        return Ok(of_address(world, address));
    }
    let mut name = url.host.trim_end_matches('.').to_owned();
    let mut said = name.clone();
    for _ in 0..MOST_ALIASES {
        let Some(service) = find(world, &name, namespace) else { return outside(world, url, &name, said) };
        if *service.host != name {
            said = format!("{said} is {}", service.host);
        }
        match (&service.alias_of, service.resolution) {
            (Some(other), Resolution::Alias) => {
                said = format!("{said}, which is another name for {other}");
                name = other.to_ascii_lowercase();
            }
            _ => return of_service(world, url, &service, said),
        }
    }
    Err(Misunderstood(format!("`{}` is a name for a name for a name …: ExternalNames go round in a circle", url.host)))
}

fn find(world: &World, name: &str, namespace: &str) -> Option<Arc<Service>> {
    let domain = &world.mesh.config().domain;
    let searched = [
        format!("{name}.{namespace}.svc.{domain}"),
        format!("{name}.svc.{domain}"),
        format!("{name}.{domain}"),
        name.to_owned(),
    ];
    let of_host = |host: &String| {
        let services = world.mesh.services_of_host(host);
        let reachable =
            |it: &&Arc<Service>| it.registry == Registry::Kubernetes || it.export_to.reaches(&it.namespace, namespace);
        services.iter().filter(reachable).min_by_key(|it| it.registry).cloned()
    };
    searched.iter().find_map(of_host).or_else(|| {
        let wild = world.mesh.services().iter().filter(|it| {
            host::is_wildcard(&it.host)
                && host::is_subset_of(name, &it.host)
                && it.export_to.reaches(&it.namespace, namespace)
        });
        wild.max_by_key(|it| it.host.len()).cloned()
    })
}

fn of_address(world: &World, address: IpAddr) -> Resolved {
    let service = world.mesh.services().iter().find(|it| it.vips().any(|vip| vip == address)).cloned();
    let said = match (&service, world.at_address(address)) {
        (Some(service), _) => format!("{address} is an address of {}", service.host),
        (None, Some(workload)) => format!("{address} is that of {}.{}", workload.name, workload.namespace),
        (None, None) => format!("{address} is nobody's in the mesh"),
    };
    let place = service.as_ref().map(|service| place(&service.origin));
    Resolved { address, service, said, place }
}

fn of_service(world: &World, url: &Url, service: &Arc<Service>, said: String) -> Result<Resolved, Misunderstood> {
    let port = url.port();
    if service.port(port).is_none() {
        return Err(no_port(service, url));
    }
    let known = |address, how: &str| Resolved {
        address,
        service: Some(Arc::clone(service)),
        said: format!("{said}, {how}"),
        place: Some(place(&service.origin)),
    };
    if let Some(address) = service.vips().next() {
        return Ok(known(address, &format!("at {address}")));
    }
    if service.is_headless() {
        let endpoints = world.mesh.endpoints(service);
        let first = endpoints.port(port).iter().find_map(|endpoint| endpoint.address.ip());
        return match first {
            Some(address) => Ok(known(address, &format!("headless: one of its pods, say {address}"))),
            None => Err(Misunderstood(format!(
                "`{}` has no address: {} is headless and no pod is ready behind it",
                url.host, service.host
            ))),
        };
    }
    Ok(known(OUTSIDE, "wherever DNS outside says that it is"))
}

fn no_port(service: &Service, url: &Url) -> Misunderstood {
    let ports: Vec<String> = service.ports.iter().map(|it| format!("{} ({})", it.number, it.name)).collect();
    let host = &service.host;
    let example = service.ports.first().map(|first| {
        let (scheme, rest) = url
            .to_string()
            .split_once("://")
            .map_or((String::new(), String::new()), |(a, b)| (a.to_owned(), b.to_owned()));
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let name = rest[..at].split(':').next().unwrap_or_default().to_owned();
        format!(", write `{scheme}://{name}:{}{}`", first.number, &rest[at..])
    });
    let has = if ports.is_empty() { "none at all".to_owned() } else { ports.join(", ") };
    let missing = match url.port {
        Some(port) => format!("{host} has no port {port}"),
        None => format!("{host} has no port {}, which is what `{url}` means", url.port()),
    };
    Misunderstood(format!("{missing}; it has {has}{}", example.unwrap_or_default()))
}

fn outside(world: &World, url: &Url, name: &str, said: String) -> Result<Resolved, Misunderstood> {
    let domain = &world.mesh.config().domain;
    let of_mesh =
        name == "localhost" || !name.contains('.') || name.ends_with(&format!(".{domain}")) || name.ends_with(".svc");
    // `reviews.default` may be a place outside, but nobody means that.
    let looks_short = name.split_once('.').is_some_and(|(_, rest)| {
        let namespaces: Vec<&str> = world.mesh.services().iter().map(|it| &*it.namespace).collect();
        did_you_mean(rest, &namespaces).is_some()
    });
    if !of_mesh && !looks_short {
        let said = format!("{said} is no service of the mesh: wherever DNS outside says that it is");
        return Ok(Resolved { address: OUTSIDE, service: None, said, place: None });
    }
    let short = name.split('.').next().unwrap_or(name);
    let known: Vec<&str> = world.mesh.services().iter().map(|service| &*service.name).collect();
    let hint = match known.iter().find(|known| **known == short) {
        Some(_) => {
            let services = world.mesh.services();
            let there = services.iter().find(|it| &*it.name == short).map(|it| &*it.host).unwrap_or_default();
            format!(": did you mean `{there}`?")
        }
        None => did_you_mean(short, &known).map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default(),
    };
    Err(Misunderstood(format!("`{}` is no name that a pod could resolve{hint}", url.host)))
}

//! ClusterIPs for Services that have none: found from the Service's name, the same in every run as far as possible, and
//! remembered on disk where two names meet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use lateen_api::kubernetes::service::ServiceType;
use lateen_api::{Object, ObjectKey};
use sha2::{Digest as _, Sha256};

/// 10.96.0.0/16.
const FIRST: u32 = 0x0a60_0000;
const COUNT: u32 = 1 << 16;
/// The first addresses are left for Services that ask for them (the API server's .1, DNS' .10).
const RESERVED: u32 = 256;

/// What has been given out, by `namespace/name`.
pub(super) struct Addresses {
    file: PathBuf,
    given: BTreeMap<String, Ipv4Addr>,
}

impl Addresses {
    /// A file that is missing or damaged is an empty one: most names get the same address again anyway.
    pub(super) fn load(file: PathBuf) -> Self {
        let given = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), %error, "remembered ClusterIPs cannot be read");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { file, given }
    }

    /// Decides on the address of every Service that should have one and has none; gives the names of those for which that is
    /// another than before. `services`: all there are.
    pub(super) fn decide<'a>(&mut self, services: impl Iterator<Item = &'a Object> + Clone) -> Vec<ObjectKey> {
        let mut taken: BTreeSet<Ipv4Addr> = services.clone().filter_map(own_address).collect();
        let needy: BTreeMap<String, &Object> =
            services.filter(|object| needs_address(object)).map(|object| (name(object), object)).collect();
        let before = self.given.clone();
        self.given.retain(|name, address| needy.contains_key(name) && taken.insert(*address));
        for name in needy.keys() {
            if !self.given.contains_key(name)
                && let Some(address) = find(name, &taken)
            {
                taken.insert(address);
                self.given.insert(name.clone(), address);
            }
        }
        if self.given != before {
            self.save();
        }
        let other = needy.iter().filter(|(name, _)| self.given.get(*name) != before.get(*name));
        other.map(|(_, object)| object.key()).collect()
    }

    /// Gives a Service the address that was decided on.
    pub(super) fn fill(&self, object: &mut Object) {
        if needs_address(object)
            && let Some(address) = self.given.get(&name(object)).map(Ipv4Addr::to_string)
            && let Object::Service(service) = object
        {
            let spec = &mut std::sync::Arc::make_mut(service).spec;
            spec.cluster_ips = vec![address.clone()];
            spec.cluster_ip = address;
        }
    }

    fn save(&self) {
        let draft = self.file.with_extension("draft");
        let bytes = serde_json::to_vec_pretty(&self.given).unwrap_or_default();
        let saved = std::fs::File::create(&draft)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&draft, &self.file));
        if let Err(error) = saved {
            tracing::warn!(file = %self.file.display(), %error, "ClusterIPs cannot be remembered");
        }
    }
}

fn name(object: &Object) -> String {
    format!("{}/{}", object.namespace(), object.name())
}

fn needs_address(object: &Object) -> bool {
    match object {
        Object::Service(service) => {
            service.spec.cluster_ip.is_empty() && service.spec.kind != ServiceType::ExternalName
        }
        _ => false,
    }
}

fn own_address(object: &Object) -> Option<Ipv4Addr> {
    match object {
        Object::Service(service) => service.spec.cluster_ip.parse().ok(),
        _ => None,
    }
}

/// The name's own address, or the next free one; none when all are taken.
fn find(name: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let digest = Sha256::digest(name);
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let span = COUNT - RESERVED - 1;
    (0..span)
        .map(|step| Ipv4Addr::from(FIRST + RESERVED + (start.wrapping_add(step)) % span))
        .find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use lateen_api::parse_documents;

    use super::*;

    fn service(name: &str, spec: &str) -> Object {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}], {spec}}}\n"
        );
        parse_documents("a.yaml", &text, "default").objects.remove(0)
    }

    fn assign(addresses: &mut Addresses, services: &mut [Object]) {
        addresses.decide(services.iter());
        services.iter_mut().for_each(|service| addresses.fill(service));
    }

    fn address(object: &Object) -> &str {
        let Object::Service(service) = object else { unreachable!("only services here") };
        &service.spec.cluster_ip
    }

    #[test]
    fn names_have_addresses_of_their_own_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = [service("a", ""), service("b", "")];
        assign(&mut Addresses::load(folder.path().join("x")), &mut one);
        let mut other = [service("b", ""), service("a", "")];
        assign(&mut Addresses::load(folder.path().join("y")), &mut other);
        assert_eq!((address(&one[0]), address(&one[1])), (address(&other[1]), address(&other[0])));
        assert!(address(&one[0]).starts_with("10.96.") && address(&one[0]) != address(&one[1]));
    }

    #[test]
    fn an_address_stays_when_its_owner_comes_second() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("addresses.json");
        let mut lone = [service("a", "")];
        assign(&mut Addresses::load(file.clone()), &mut lone);
        let wanted = address(&lone[0]).to_owned();
        // Somebody else asks for that very address: it is theirs, and `a` gets another and keeps it.
        let mut both = [service("a", ""), service("b", &format!("clusterIP: {wanted}"))];
        assign(&mut Addresses::load(file.clone()), &mut both);
        let moved = address(&both[0]).to_owned();
        assert_ne!(moved, wanted);
        let mut again = [service("a", "")];
        assign(&mut Addresses::load(file), &mut again);
        assert_eq!(address(&again[0]), moved);
    }

    #[test]
    fn headless_and_external_services_get_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut services =
            [service("a", "clusterIP: None"), service("b", "type: ExternalName, externalName: x.example")];
        assign(&mut Addresses::load(folder.path().join("x")), &mut services);
        assert_eq!((address(&services[0]), address(&services[1])), ("None", ""));
    }
}

//! ClusterIPs for Services that have none: found from the Service's name, the same in every run as far as possible, and
//! remembered on disk where two names meet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use lateen_api::Object;
use lateen_api::kubernetes::service::ServiceType;
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

    /// Gives an address to every Service that should have one and has none.
    pub(super) fn assign(&mut self, objects: &mut [Object]) {
        let before = self.given.clone();
        let mut taken: BTreeSet<Ipv4Addr> = objects.iter().filter_map(own_address).collect();
        let needy: BTreeSet<String> = objects.iter().filter(|object| needs_address(object)).map(name).collect();
        self.given.retain(|name, address| needy.contains(name) && taken.insert(*address));
        for name in needy {
            if !self.given.contains_key(&name)
                && let Some(address) = find(&name, &taken)
            {
                taken.insert(address);
                self.given.insert(name, address);
            }
        }
        for object in objects.iter_mut().filter(|object| needs_address(object)) {
            let given = self.given.get(&name(object)).map(Ipv4Addr::to_string);
            if let (Object::Service(service), Some(address)) = (object, given) {
                let spec = &mut std::sync::Arc::make_mut(service).spec;
                spec.cluster_ips = vec![address.clone()];
                spec.cluster_ip = address;
            }
        }
        if self.given != before {
            self.save();
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

    fn address(object: &Object) -> &str {
        let Object::Service(service) = object else { unreachable!("only services here") };
        &service.spec.cluster_ip
    }

    #[test]
    fn names_have_addresses_of_their_own_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = [service("a", ""), service("b", "")];
        Addresses::load(folder.path().join("x")).assign(&mut one);
        let mut other = [service("b", ""), service("a", "")];
        Addresses::load(folder.path().join("y")).assign(&mut other);
        assert_eq!((address(&one[0]), address(&one[1])), (address(&other[1]), address(&other[0])));
        assert!(address(&one[0]).starts_with("10.96.") && address(&one[0]) != address(&one[1]));
    }

    #[test]
    fn an_address_stays_when_its_owner_comes_second() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("addresses.json");
        let mut lone = [service("a", "")];
        Addresses::load(file.clone()).assign(&mut lone);
        let wanted = address(&lone[0]).to_owned();
        // Somebody else asks for that very address: it is theirs, and `a` gets another and keeps it.
        let mut both = [service("a", ""), service("b", &format!("clusterIP: {wanted}"))];
        Addresses::load(file.clone()).assign(&mut both);
        let moved = address(&both[0]).to_owned();
        assert_ne!(moved, wanted);
        let mut again = [service("a", "")];
        Addresses::load(file).assign(&mut again);
        assert_eq!(address(&again[0]), moved);
    }

    #[test]
    fn headless_and_external_services_get_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut services =
            [service("a", "clusterIP: None"), service("b", "type: ExternalName, externalName: x.example")];
        Addresses::load(folder.path().join("x")).assign(&mut services);
        assert_eq!((address(&services[0]), address(&services[1])), ("None", ""));
    }
}

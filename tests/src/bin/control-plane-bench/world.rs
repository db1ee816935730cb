//! The mesh that is measured: services in namespaces, ten pods each, and rules for every tenth of them; and its changes.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Pods of a service.
const PODS: usize = 10;
/// Namespaces over which the services are spread.
const NAMESPACES: usize = 50;
/// A namespace of which nobody else sees anything.
const APART: &str = "apart";
/// First address of Services, 10.100.0.0, and of pods, 10.128.0.0.
const SERVICE_ADDRESSES: u32 = 0x0a64_0000;
const POD_ADDRESSES: u32 = 0x0a80_0000;

pub(crate) struct World {
    folder: PathBuf,
    services: usize,
    /// Whether the last pod of each service is ready, and that of the hidden one.
    ready: Vec<bool>,
    ready_apart: bool,
    /// Counts changes, so that each differs from the last.
    changes: usize,
}

impl World {
    /// Writes the whole mesh into a folder: `input` for what people write, `state/pods` for what runs.
    pub(crate) fn create(folder: &Path, services: usize) -> anyhow::Result<Self> {
        let world =
            Self { folder: folder.to_owned(), services, ready: vec![true; services], ready_apart: true, changes: 0 };
        std::fs::create_dir_all(world.input())?;
        std::fs::create_dir_all(world.state().join("pods"))?;
        for namespace in 0..NAMESPACES.min(services) {
            let own = (namespace..services).step_by(NAMESPACES);
            let texts: Vec<String> = own.map(|service| world.service(service).to_string()).collect();
            save(&world.input(), &format!("ns-{namespace:02}.yaml"), &texts.join("\n---\n"))?;
        }
        for service in 0..services {
            if service % 10 == 0 {
                world.write_rules(service, 10)?;
            }
            world.write_pods(service, true)?;
        }
        let annotations = json!({"networking.istio.io/exportTo": "."});
        let service = service("hidden", APART, SERVICE_ADDRESSES - 1, &annotations);
        save(&world.input(), "apart.yaml", &service.to_string())?;
        world.write_pods_apart(true)?;
        Ok(world)
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.folder.join("input")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The node ids of this many pods, spread over the services.
    pub(crate) fn proxies(&self, count: usize) -> Vec<String> {
        assert!(count <= self.services * PODS, "a proxy needs a pod");
        let of = |at: usize| {
            let (service, pod) = (at % self.services, at / self.services);
            let namespace = namespace(service);
            let address = address(POD_ADDRESSES, service * PODS + pod);
            format!("sidecar~{address}~{}-{pod}.{namespace}~{namespace}.svc.cluster.local", name(service))
        };
        (0..count).map(of).collect()
    }

    /// The service whose endpoints are to change next, and the name of those endpoints.
    pub(crate) fn next_endpoints(&mut self) -> (usize, String) {
        let service = self.next();
        (service, format!("outbound|80||{}.{}.svc.cluster.local", name(service), namespace(service)))
    }

    /// The last pod of a service becomes ready, or stops being so.
    pub(crate) fn change_endpoints(&mut self, service: usize) -> anyhow::Result<()> {
        self.ready[service] = !self.ready[service];
        self.write_pods(service, self.ready[service])
    }

    /// The same, where nobody else can see it.
    pub(crate) fn change_apart(&mut self) -> anyhow::Result<()> {
        self.ready_apart = !self.ready_apart;
        self.write_pods_apart(self.ready_apart)
    }

    /// A route's timeout changes, and with it everybody's route table.
    pub(crate) fn change_route(&mut self) -> anyhow::Result<()> {
        let service = self.next() / 10 * 10;
        self.write_rules(service, 10 + self.changes)
    }

    /// Another service each time.
    fn next(&mut self) -> usize {
        self.changes += 1;
        self.changes * 7 % self.services
    }

    fn service(&self, at: usize) -> Value {
        service(&name(at), &namespace(at), SERVICE_ADDRESSES + u32::try_from(at).expect("it is small"), &json!({}))
    }

    fn write_rules(&self, at: usize, timeout: usize) -> anyhow::Result<()> {
        let (name, namespace) = (name(at), namespace(at));
        let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
        let route =
            |version: &str, weight: u32| json!({"destination": {"host": name, "subset": version}, "weight": weight});
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"host": name, "subsets": [subset("v1"), subset("v2")]},
        });
        let routes = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": [name], "http": [{"timeout": format!("{timeout}s"), "route": [route("v1", 90), route("v2", 10)]}]},
        });
        save(&self.input(), &format!("rules-{name}.yaml"), &format!("{rule}\n---\n{routes}"))
    }

    fn write_pods(&self, service: usize, last_is_ready: bool) -> anyhow::Result<()> {
        let (name, namespace) = (name(service), namespace(service));
        let pods: Vec<String> = (0..PODS)
            .map(|at| pod(&name, &namespace, at, service * PODS + at, last_is_ready || at + 1 < PODS).to_string())
            .collect();
        save(&self.state().join("pods"), &format!("{namespace}_{name}.yaml"), &pods.join("\n---\n"))
    }

    fn write_pods_apart(&self, is_ready: bool) -> anyhow::Result<()> {
        let text = pod("hidden", APART, 0, self.services * PODS, is_ready).to_string();
        save(&self.state().join("pods"), "apart_hidden.yaml", &text)
    }
}

fn name(service: usize) -> String {
    format!("svc-{service:04}")
}

fn namespace(service: usize) -> String {
    format!("ns-{:02}", service % NAMESPACES)
}

fn address(base: u32, at: usize) -> std::net::Ipv4Addr {
    (base + u32::try_from(at).expect("it is small")).into()
}

fn service(name: &str, namespace: &str, address: u32, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": annotations},
        "spec": {
            "clusterIP": std::net::Ipv4Addr::from(address).to_string(),
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

/// As the injector and a kubelet leave it, as far as a mesh looks at it.
fn pod(service: &str, namespace: &str, at: usize, address_at: usize, is_ready: bool) -> Value {
    let version = if at.is_multiple_of(2) { "v1" } else { "v2" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{service}-{at}"), "namespace": namespace, "uid": format!("{namespace}-{service}-{at}"),
            "labels": {
                "app": service, "version": version, "pod-template-hash": "5d8f9c7b6",
                "security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": service,
                "service.istio.io/canonical-revision": version,
            },
            "annotations": {"sidecar.istio.io/status": "{}"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{service}-5d8f9c7b6")}],
        },
        "spec": {
            "serviceAccountName": service,
            "containers": [
                {"name": "app", "image": "example/app:1", "ports": [{"name": "http", "containerPort": 8080}]},
                {"name": "istio-proxy", "image": "lateen/proxy:0"},
            ],
        },
        "status": {
            "phase": "Running", "podIP": address(POD_ADDRESSES, address_at).to_string(),
            "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
        },
    })
}

/// Beside, then renamed: nobody reads half of it.
fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let draft = folder.join(".draft");
    std::fs::File::create(&draft)?.write_all(text.as_bytes())?;
    Ok(std::fs::rename(draft, folder.join(name))?)
}

//! One pod, from its template to nothing left of it.

mod container;
pub(crate) mod container_init;
mod container_plan;
pub(crate) mod enter;
mod environment;
pub(crate) mod live;
pub(crate) mod log_file;
mod probe;
mod publish;
mod shepherd;
mod supported;
mod view;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lateen_api::kubernetes::{Deployment, Pod, PodSpec};
use lateen_api::meta::OwnerReference;
use lateen_api::{ObjectMeta, Resource};
use lateen_intercept::dns::resolv_conf;
use lateen_intercept::netns::NetNs;
use tokio::time::sleep;

use super::CLUSTER_DOMAIN;
use super::messages::{Event, Mount};
use super::node::cluster::Stored;
use super::node::registry::PodHandle;
use super::node::{Node, network};
use super::state_dir::write_atomically;
use container::Running;
use container_plan::ContainerSpec;
use environment::Fields;
use publish::Publisher;
use volumes::{Credentials, Volumes};

/// Pauses between attempts to set a pod up: the first and the longest.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(20)];
/// A pod's token is renewed so often, at half of its life.
const TOKEN_RENEWAL: Duration = Duration::from_secs(6 * 3600);
/// Between a pod leaving its services and its containers being told to end, so that nobody is sent to one that ends.
const LEAD: Duration = Duration::from_millis(1000);
/// Kubernetes' default of `terminationGracePeriodSeconds`.
const GRACE: u64 = 30;

/// Everything needed to run a pod's containers.
struct Prepared {
    spec: PodSpec,
    init: Vec<ContainerSpec>,
    containers: Vec<ContainerSpec>,
    volumes: Volumes,
    net: NetNs,
}

/// Runs a pod until it is asked to end, and cleans up after it.
pub(crate) async fn run(node: Arc<Node>, pod: Arc<PodHandle>, deployment: Arc<Stored<Deployment>>) {
    let object = new_object(&pod, &deployment);
    let publisher = Publisher::start(&node, &pod, object.clone());
    if let Some(prepared) = prepare_until_it_works(&node, &pod, &object, &deployment, &publisher).await {
        run_containers(&node, &pod, prepared).await;
    }
    publisher.end().await;
    clean_up(&node, &pod).await;
    node.tell(Event::PodGone { namespace: pod.key.namespace.clone(), pod: pod.key.name.clone() });
    node.pods.remove(&pod);
}

/// The Pod as Kubernetes would have made it from the template.
fn new_object(pod: &PodHandle, deployment: &Stored<Deployment>) -> Resource<Pod> {
    let template = &deployment.spec.template;
    let mut metadata = ObjectMeta::named(&pod.key.namespace, &pod.key.name);
    metadata.labels.clone_from(&pod.labels);
    metadata.annotations.clone_from(&template.metadata.annotations);
    metadata.uid.clone_from(&pod.uid);
    metadata.creation_timestamp = Some(live::now());
    metadata.generate_name = format!("{}-{}-", deployment.metadata.name, pod.template);
    metadata.owner_references = vec![OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: format!("{}-{}", deployment.metadata.name, pod.template),
        controller: Some(true),
        ..OwnerReference::default()
    }];
    let spec = Pod { spec: template.spec.clone(), status: None };
    Resource::new(metadata, spec, deployment.origin())
}

/// `None` when the pod is asked to end before.
async fn prepare_until_it_works(
    node: &Arc<Node>,
    pod: &Arc<PodHandle>,
    object: &Resource<Pod>,
    deployment: &Stored<Deployment>,
    publisher: &Publisher,
) -> Option<Prepared> {
    let mut stopped = pod.stopped();
    let mut pause = RETRY[0];
    let mut told = String::new();
    loop {
        let asked = tokio::select! {
            asked = ask_control_plane(node, pod, object) => asked,
            _ = stopped.wait_for(Option::is_some) => return None,
        };
        // Once begun this is waited for, so that cleaning up finds all that was made.
        let error = match prepare(node, pod, asked, publisher).await {
            Ok(prepared) => {
                pod.update(|live| live.failure = None);
                return Some(prepared);
            }
            Err(error) => format!("{error:#}"),
        };
        pod.update(|live| live.failure = Some(error.clone()));
        if error != told {
            let (name, place) = (&pod.key.name, deployment.origin());
            node.tell(Event::Problem { text: format!("{place}: pod {name} cannot start: {error}") });
            told = error;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stopped.wait_for(Option::is_some) => return None,
        }
        pause = (pause * 2).min(RETRY[1]);
    }
}

/// What the control plane makes of a pod, and gives it.
struct Admitted {
    metadata: ObjectMeta,
    spec: PodSpec,
    injected: bool,
    credentials: Credentials,
}

async fn ask_control_plane(node: &Node, pod: &PodHandle, object: &Resource<Pod>) -> anyhow::Result<Admitted> {
    let injection = node.api.inject(&object.to_json()).await.context("inject the proxy")?;
    if let Some(reason) = injection.reason.filter(|_| !injection.injected && asks_for_a_proxy(object)) {
        node.tell(Event::Note { text: format!("pod {} gets no proxy: {reason}", pod.key.name) });
    }
    let mut json = injection.pod;
    let metadata: ObjectMeta =
        serde_json::from_value(json["metadata"].take()).context("the injected pod's metadata")?;
    let spec: PodSpec = serde_json::from_value(json["spec"].take()).context("the injected pod's spec")?;
    supported::check(&spec)?;
    let token = node.api.token(&pod.key.namespace, spec.account(), &pod.key.name, &pod.uid).await;
    let token = token.context("get a token")?.token;
    let credentials = Credentials { token, root: node.api.root().await? };
    Ok(Admitted { metadata, spec, injected: injection.injected, credentials })
}

async fn prepare(
    node: &Arc<Node>,
    pod: &Arc<PodHandle>,
    asked: anyhow::Result<Admitted>,
    publisher: &Publisher,
) -> anyhow::Result<Prepared> {
    let admitted = asked?;
    publisher.set(admitted.metadata.clone(), admitted.spec.clone());
    let (node, pod) = (Arc::clone(node), Arc::clone(pod));
    tokio::task::spawn_blocking(move || set_up(&node, &pod, admitted)).await?
}

/// Whether somebody would wonder about a pod without a proxy.
fn asks_for_a_proxy(object: &Resource<Pod>) -> bool {
    object.metadata.label("sidecar.istio.io/inject") == Some("true")
}

/// Files, links and plans; everything that blocks.
fn set_up(node: &Node, pod: &PodHandle, admitted: Admitted) -> anyhow::Result<Prepared> {
    let Admitted { metadata, spec, injected, credentials } = admitted;
    let folder = pod_folder(node, pod);
    let address = pod.address.to_string();
    let fields = Fields { metadata: &metadata, spec: &spec, address: &address };
    let volumes = Volumes::prepare(&folder, &spec.volumes, fields, &credentials)?;
    let files = node_files(&folder, pod, &spec)?;
    let plan = |container, is_init| container_plan::plan(node, &folder, &files, &volumes, fields, container, is_init);
    let init = spec.init_containers.iter().map(|it| plan(it, true)).collect::<anyhow::Result<Vec<_>>>()?;
    let containers = spec.containers.iter().map(|it| plan(it, false)).collect::<anyhow::Result<Vec<_>>>()?;
    // A former attempt may have got so far.
    let link = link_name(pod);
    network::remove_pod(&link)?;
    let net = network::add_pod(&link, pod.address)?;
    pod.update(|live| {
        live.injected = injected;
        live.named_ports = probe::named(spec.containers.iter().chain(&spec.init_containers).flat_map(|it| &it.ports));
        live.init = init.iter().map(ContainerSpec::live).collect();
        live.containers = containers.iter().map(ContainerSpec::live).collect();
    });
    Ok(Prepared { spec, init, containers, volumes, net })
}

fn pod_folder(node: &Node, pod: &PodHandle) -> PathBuf {
    node.state.run().join(format!("{}_{}", pod.key.namespace, pod.key.name))
}

/// An interface name has 15 bytes; the address is unique among pods.
fn link_name(pod: &PodHandle) -> String {
    let [_, _, high, low] = pod.address.octets();
    format!("pod-{high}-{low}")
}

/// The files in `/etc` that a node gives its pods.
fn node_files(folder: &std::path::Path, pod: &PodHandle, spec: &PodSpec) -> anyhow::Result<Vec<Mount>> {
    let name = if spec.hostname.is_empty() { &pod.key.name } else { &spec.hostname };
    let etc = folder.join("etc");
    std::fs::create_dir_all(&etc).with_context(|| format!("create {}", etc.display()))?;
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{name}\n", pod.address);
    let resolv = resolv_conf(network::NODE_ADDRESS, &pod.key.namespace, CLUSTER_DOMAIN);
    let mut mounts = Vec::new();
    for (file, content) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", format!("{name}\n"))] {
        let source = etc.join(file);
        write_atomically(&source, content.as_bytes())?;
        mounts.push(Mount { source, target: PathBuf::from("/etc").join(file), read_only: false });
    }
    Ok(mounts)
}

async fn run_containers(node: &Arc<Node>, pod: &Arc<PodHandle>, prepared: Prepared) {
    let Prepared { spec, init, containers, volumes, net } = prepared;
    let net = Arc::new(net);
    let mut stopped = pod.stopped();
    let (mut before, mut apps) = (Vec::new(), Vec::new());
    {
        let starting = async {
            for (index, container) in init.into_iter().enumerate() {
                let is_sidecar = container.is_sidecar;
                let running = Running::start(node, pod, &net, container, container::Slot::Init(index));
                let running = kept(&mut before, running);
                if is_sidecar {
                    running.started().await;
                } else {
                    running.finished().await;
                }
            }
            pod.update(|live| live.initialized = true);
            for (index, container) in containers.into_iter().enumerate() {
                let running = Running::start(node, pod, &net, container, container::Slot::App(index));
                kept(&mut apps, running).attempted().await;
            }
            renew_token(node, pod, &spec, &volumes).await;
        };
        tokio::select! {
            () = starting => {}
            _ = stopped.wait_for(Option::is_some) => {}
        }
    }
    let stop = *stopped.borrow();
    let at_most = stop.and_then(|stop| stop.at_most);
    if at_most.is_none() && pod.live().is_ready() {
        tokio::select! {
            () = sleep(LEAD) => {}
            _ = stopped.wait_for(|stop| stop.is_some_and(|stop| stop.at_most.is_some())) => {}
        }
    }
    let grace = Duration::from_secs(spec.termination_grace_period_seconds.unwrap_or(GRACE));
    let grace = at_most.map_or(grace, |limit| grace.min(limit));
    // Sidecars serve the others to their end (Kubernetes, "Sidecar containers").
    container::stop_all(apps, grace).await;
    container::stop_all(before, grace).await;
}

/// Kept before it is waited for: waiting may be given up, and then it has to be ended all the same.
fn kept(list: &mut Vec<Running>, running: Running) -> &Running {
    list.push(running);
    &list[list.len() - 1]
}

/// Keeps the pod's token fresh. Runs until dropped.
async fn renew_token(node: &Node, pod: &PodHandle, spec: &PodSpec, volumes: &Volumes) {
    loop {
        sleep(TOKEN_RENEWAL).await;
        let token = node.api.token(&pod.key.namespace, spec.account(), &pod.key.name, &pod.uid).await;
        if let Err(error) = token.and_then(|token| volumes.renew(&token.token)) {
            node.tell(Event::Problem { text: format!("pod {}: cannot renew its token: {error:#}", pod.key.name) });
        }
    }
}

async fn clean_up(node: &Arc<Node>, pod: &Arc<PodHandle>) {
    let (node_of, handle) = (Arc::clone(node), Arc::clone(pod));
    let mesh_ends = pod.stopped().borrow().is_some_and(|stop| stop.at_most.is_some());
    let done = tokio::task::spawn_blocking(move || {
        network::remove_pod(&link_name(&handle)).context("remove the link")?;
        let mut folders = vec![pod_folder(&node_of, &handle)];
        // When the whole mesh ends its logs stay, for whoever wants to know why.
        if !mesh_ends {
            folders.push(node_of.state.log_folder(&handle.key.namespace, &handle.key.name));
        }
        for folder in folders.iter().filter(|folder| folder.exists()) {
            std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        anyhow::Ok(())
    });
    if let Ok(Err(error)) = done.await {
        node.tell(Event::Problem { text: format!("cleaning up after pod {}: {error:#}", pod.key.name) });
    }
}

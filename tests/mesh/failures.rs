//! Parts of a running mesh are killed. What they serve goes on, they come again, and in the end nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lateen_testing::eventually::eventually_blocking;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{Load, none_failed};
use crate::running::Mesh;

#[test]
fn whatever_is_killed_comes_again_and_leaves_nothing() {
    let before = host();
    let mut mesh = Mesh::of("web");
    mesh.write("rules.yaml", &to("v1"));
    eventually_blocking("the mesh serves", || mesh.get("/hello").contains("version: v1").then_some(()));
    requests_do_not_notice_the_control_planes_death(&mesh);
    a_proxy_is_started_again(&mesh);
    for part in ["`lateen up`", "the node"] {
        let process = mesh.processes()[usize::from(part == "the node")];
        kill(Pid::from_raw(process), Signal::SIGKILL).expect("it runs");
        eventually_blocking("every process of the mesh is gone", || {
            processes_of(mesh.folder()).is_empty().then_some(())
        });
        assert_eq!(host(), before, "{part} was killed");
        mesh.start_again();
        eventually_blocking("the next mesh serves", || mesh.get("/hello").starts_with("HTTP/1.1 200").then_some(()));
    }
    let folder = mesh.folder().to_owned();
    mesh.run(&["down"]);
    assert_eq!((processes_of(&folder), host()), (Vec::new(), before), "after `lateen down`");
}

/// All requests at the gateway go to one version.
fn to(version: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: front}}
spec:
  hosts: ['*']
  gateways: [front]
  http:
  - route: [{{destination: {{host: web, subset: {version}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec:
  host: web
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"
    )
}

/// Without a control plane proxies go on with what they have; when it is back, they take from it what is new.
fn requests_do_not_notice_the_control_planes_death(mesh: &Mesh) {
    let load = Load::on_gateway(mesh, "/hello", 0, 100);
    load.only("v1", 20);
    for version in ["v2", "v1"] {
        let before = mesh.log().len();
        let lateend = one_process(mesh, "lateend");
        kill(Pid::from_raw(lateend), Signal::SIGKILL).expect("it runs");
        eventually_blocking("its death is told", || {
            mesh.log()[before..].contains("the control plane ended with status 137").then_some(())
        });
        // While it is away.
        mesh.write("rules.yaml", &to(version));
        load.more(50);
        load.only(version, 20);
        assert_ne!(one_process(mesh, "lateend"), lateend);
    }
    // Every proxy is connected again, and as the same workload.
    eventually_blocking("all proxies are connected again", || {
        (mesh.run(&["proxy-status"]).matches("synced").count() == 4).then_some(())
    });
    none_failed(&load.stop());
    mesh.apply_text(&to("v2"));
    assert!(mesh.get("/hello").contains("version: v2"));
}

fn a_proxy_is_started_again(mesh: &Mesh) {
    let address = mesh.address_of("web-v2");
    let proxy = proxy_of(mesh, "web-v2");
    kill(Pid::from_raw(proxy), Signal::SIGKILL).expect("it runs");
    eventually_blocking("another proxy runs in the pod", || {
        let [_, _, _, _, restarts, ..] = &mesh.status_of("web-v2")[..] else { return None };
        (restarts == "1").then_some(())
    });
    assert_eq!(mesh.address_of("web-v2"), address, "it is the same pod");
    assert_ne!(proxy_of(mesh, "web-v2"), proxy);
    eventually_blocking("it serves", || mesh.get("/hello").contains("version: v2").then_some(()));
}

/// The process of the mesh whose program is called so.
pub(crate) fn one_process(mesh: &Mesh, program: &str) -> i32 {
    eventually_blocking(&format!("{program} runs"), || {
        processes_of(mesh.folder()).into_iter().find(|process| process.program == program).map(|process| process.pid)
    })
}

fn proxy_of(mesh: &Mesh, pod: &str) -> i32 {
    let of_pod = |process: &Process| {
        let named = format!("POD_NAME={pod}");
        process.program == "lateen-proxy" && process.environment.split('\0').any(|it| it.starts_with(&named))
    };
    eventually_blocking(&format!("the proxy of {pod} runs"), || {
        processes_of(mesh.folder()).into_iter().find(of_pod).map(|process| process.pid)
    })
}

#[derive(Debug, PartialEq)]
struct Process {
    pid: i32,
    program: String,
    environment: String,
}

/// Processes that belong to the mesh of a folder, whoever started them: it is in what they were started with, in their
/// mounts, or in their program's output files.
fn processes_of(folder: &Path) -> Vec<Process> {
    let mark = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc(5) is mounted") {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read =
            |name: &str| String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned();
        let environment = read("environ");
        if [&environment, &read("cmdline"), &read("mountinfo")].iter().any(|text| text.contains(&mark)) {
            found.push(Process { pid, program: read("comm").trim_end().to_owned(), environment });
        }
    }
    found
}

/// What a mesh could leave on the machine: interfaces, and mounts of its own.
fn host() -> (BTreeSet<String>, Vec<String>) {
    let links = fs::read_dir("/sys/class/net")
        .expect("sysfs is mounted")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc(5) is mounted");
    let ours = mounts.lines().filter(|line| line.contains("lateen")).map(str::to_owned).collect();
    (links.collect(), ours)
}

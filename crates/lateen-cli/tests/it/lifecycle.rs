//! Up, down, and what is left behind; edits while it runs.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::mesh::{Mesh, client, eventually, shell, web};

/// What the host has that a mesh could leave behind.
fn host() -> (BTreeSet<String>, usize) {
    let links = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    (links.filter(|name| name.starts_with("pod-")).collect(), mounts.matches("lateen").count())
}

#[test]
fn down_leaves_nothing() {
    let [pods, front] = web("shop", 2);
    // Something that went into the background, too.
    let mesh = Mesh::up(&[pods, front, shell("daemon", "(setsid sleep 1000 &) ; exec sleep 1000")]);
    let family = mesh.family();
    assert_eq!(family.alive().iter().filter(|line| line.contains("sleep 1000")).count(), 2, "{:?}", family.alive());
    let status = mesh.lateen(&["status"]).ok();
    assert!(status.starts_with("3/3 pods ready"), "{status}");
    let said = mesh.lateen(&["down"]).ok();
    assert!(said.starts_with("the mesh is down"), "{said}");
    assert_eq!((family.alive(), mesh.left_over()), (Vec::new(), Vec::new()));
    assert_eq!(host(), (BTreeSet::new(), 0));
    for gone in ["supervisor.json", "supervisor.sock", "lateend.sock", "pods", "run", "applied"] {
        assert!(!mesh.path("state").join(gone).exists(), "{gone} is left");
    }
    assert_eq!(mesh.lateen(&["status"]).code, Some(1));
    assert!(mesh.lateen(&["down"]).ok().starts_with("no mesh is running"));
}

#[test]
fn whichever_part_is_killed_nothing_is_left_and_the_next_start_works() {
    let mesh = Mesh::up(&[client()]);
    for part in [0, 1] {
        let (parts, family) = (mesh.processes(), mesh.family());
        assert!(family.alive().len() > 4, "{family:?}");
        kill(Pid::from_raw(parts[part]), Signal::SIGKILL).unwrap();
        eventually("everything is gone", || (family.alive().is_empty() && mesh.left_over().is_empty()).then_some(()));
        if part == 1 {
            assert!(mesh.log().contains("the node was ended by SIGKILL"), "{}", mesh.log());
        }
        mesh.lateen(&mesh.up_arguments(&["--detach"])).ok();
        mesh.exec("client", "true").ok();
    }
    kill(Pid::from_raw(mesh.processes()[0]), Signal::SIGKILL).unwrap();
    eventually("everything is gone", || mesh.left_over().is_empty().then_some(()));
    assert!(mesh.lateen(&["down"]).ok().starts_with("no mesh is running"));
    assert!(!mesh.path("state/pods").exists());
}

#[test]
fn the_control_plane_is_started_again() {
    let mesh = Mesh::up(&[client()]);
    let find = || {
        let all = mesh.family().alive();
        let line = all.iter().find(|line| line.contains("python3") && line.contains("lateend"))?;
        line.split(':').next()?.parse::<i32>().ok()
    };
    let first = find().unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    eventually("another control plane", || find().filter(|pid| *pid != first));
    eventually("it is told", || mesh.log().contains("the control plane ended with status 137").then_some(()));
    mesh.exec("client", "true").ok();
    mesh.write(&[client(), shell("second", "sleep 1000")]);
    eventually("edits are seen again", || (mesh.exec("second", "true").code == Some(0)).then_some(()));
}

#[test]
fn ctrl_c_ends_a_mesh_in_the_foreground() {
    let mesh = Mesh::new(&[client()]);
    let output = fs::File::create(mesh.path("output")).unwrap();
    let mut child = mesh.command(&mesh.up_arguments(&[])).stdout(output).spawn().unwrap();
    let said = || fs::read_to_string(mesh.path("output")).unwrap();
    eventually("it is ready", || said().contains("1 pod ready in").then_some(()));
    for line in [
        "  app      http://localhost:",
        "  console  http://localhost:",
        "  curl -i http://localhost:",
        "lateen status",
        "lateen down",
    ] {
        eventually(line, || said().contains(line).then_some(()));
    }
    let again = mesh.lateen(&mesh.up_arguments(&[]));
    assert_eq!(again.code, Some(1));
    assert!(again.errors.contains(&format!("a mesh is already running here (process {})", child.id())), "{again:?}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(said().contains("the mesh is down"), "{}", said());
    assert_eq!(mesh.left_over(), Vec::<String>::new());
}

#[test]
fn an_edit_replaces_pods_without_a_failed_request() {
    let [mut pods, front] = web("shop", 2);
    let mesh = Mesh::up(&[pods.clone(), front.clone(), client()]);
    let before: BTreeSet<String> = names(&mesh, "shop");
    assert_eq!(before.len(), 2);
    let script = "import urllib.request as u, sys\n\
                  while True: print(u.urlopen('http://shop/', timeout=5).read().decode(), end='', flush=True)";
    let output = fs::File::create(mesh.path("answers")).unwrap();
    let errors = fs::File::create(mesh.path("errors")).unwrap();
    let mut asking =
        mesh.command(&["exec", "client", "--", "python3", "-c", script]).stdout(output).stderr(errors).spawn().unwrap();
    let answers = || fs::read_to_string(mesh.path("answers")).unwrap();
    eventually("answers", || answers().contains("hello").then_some(()));
    pods["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "GREETING", "value": "welcome"}]);
    mesh.write(&[pods.clone(), front.clone(), client()]);
    let after = eventually("the old pods are gone", || {
        let now = names(&mesh, "shop");
        (now.len() == 2 && now.is_disjoint(&before)).then_some(now)
    });
    let seen = answers().len();
    eventually("only the new ones answer", || (answers().len() > seen + 1000).then_some(()));
    assert!(asking.try_wait().unwrap().is_none(), "{}", fs::read_to_string(mesh.path("errors")).unwrap());
    asking.kill().unwrap();
    asking.wait().unwrap();
    assert!(answers().ends_with('\n') && answers().lines().next_back().unwrap().starts_with("welcome"), "{after:?}");
    // Fewer, none, and another kind of edit.
    pods["spec"]["replicas"] = json!(1);
    mesh.write(&[pods, front, client()]);
    eventually("one is left", || (names(&mesh, "shop").len() == 1).then_some(()));
    mesh.write(&[client()]);
    eventually("none is left", || names(&mesh, "shop").is_empty().then_some(()));
}

fn names(mesh: &Mesh, app: &str) -> BTreeSet<String> {
    let pods = mesh.pods();
    let of_app = pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app);
    of_app.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

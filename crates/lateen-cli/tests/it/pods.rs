//! What a pod's containers see, may do, and how they are kept running.

use std::fs;

use serde_json::{Value, json};

use crate::mesh::{Mesh, client, deployment, eventually, shell};

#[test]
fn a_container_has_its_own_names_processes_and_mounts_and_no_rights() {
    let container = json!({
        "name": "sh",
        "image": "sh",
        "args": ["sleep 1000"],
        "workingDir": "/opt/not/there/before",
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "BOTH", "value": "$(POD) $(IP)"},
        ],
        "volumeMounts": [
            {"name": "data", "mountPath": "/data/deep/inside"},
            {"name": "data", "mountPath": "/etc/lateen-test/read-only", "readOnly": true},
        ],
    });
    let mut pods = deployment("box", 1, container);
    pods["spec"]["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let mesh = Mesh::up(&[pods]);
    let pod = mesh.pods().remove(0);
    let (name, ip) = (pod["metadata"]["name"].as_str().unwrap(), pod["status"]["podIP"].as_str().unwrap());
    let told = |script: &str| mesh.exec("box", script).ok().trim().to_owned();
    assert_eq!(
        told("hostname; cat /etc/hostname; echo $BOTH; pwd"),
        format!("{name}\n{name}\n{name} {ip}\n/opt/not/there/before")
    );
    assert_eq!(told("grep -c . /etc/resolv.conf; grep nameserver /etc/resolv.conf"), "3\nnameserver 169.254.1.1");
    assert!(told("grep -w $(hostname) /etc/hosts").starts_with(ip));
    assert_eq!(told("cat /proc/1/comm; ls /run"), "lateen-init\nlock");
    let rights = told("grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status");
    assert_eq!(rights.matches("0000000000000000").count(), 5, "{rights}");
    assert!(rights.contains("NoNewPrivs:\t1"), "{rights}");
    assert_eq!(
        told(
            "echo x > /data/deep/inside/f; cat /etc/lateen-test/read-only/f; touch /etc/lateen-test/read-only/g 2>/dev/null || echo refused"
        ),
        "x\nrefused"
    );
    // Nothing of it is on the machine's own disks.
    for path in ["/opt/not", "/data/deep", "/etc/lateen-test"] {
        assert!(!fs::exists(path).unwrap(), "{path} was made on this machine");
    }
}

#[test]
fn a_volume_over_the_programs_own_directory_does_not_hide_it() {
    // The programs of these tests are below /tmp, unless the environment says otherwise; then it is that directory.
    let above = std::env::temp_dir();
    let mut pods = shell("box", "unused");
    let spec = &mut pods["spec"]["template"]["spec"];
    let mount = json!([{"name": "tmp", "mountPath": above}]);
    spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    let workdir = above.join("work");
    spec["containers"] = json!([{"name": "web", "image": "web:1", "volumeMounts": mount, "workingDir": workdir}]);
    let mesh = Mesh::up(&[pods]);
    assert_eq!(
        mesh.exec("box", &format!("ls {}; pwd", above.display())).ok(),
        format!("work\n{}\n", workdir.display())
    );
}

#[test]
fn init_containers_run_first_and_in_order_and_sidecars_beside() {
    let mut pods = shell("app", "cat /work/order > /work/seen; sleep 1000");
    let mount = json!([{"name": "work", "mountPath": "/work"}]);
    let spec = &mut pods["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "work", "emptyDir": {"medium": "Memory"}}]);
    spec["containers"][0]["volumeMounts"] = mount.clone();
    let init = |name: &str, script: &str, more: Value| {
        let mut container = json!({"name": name, "image": "sh", "args": [script], "volumeMounts": mount});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    let probe = json!({"restartPolicy": "Always", "startupProbe": {"exec": {"command": ["test", "-e", "/work/up"]}}});
    spec["initContainers"] = json!([
        init("first", "echo first >> /work/order", json!({})),
        init("beside", "sleep 0.3; echo beside >> /work/order; touch /work/up; sleep 1000", probe),
        init("last", "echo last >> /work/order", json!({})),
    ]);
    let mesh = Mesh::up(&[pods]);
    eventually("the app has seen the order", || {
        (mesh.exec("app", "cat /work/seen").output == "first\nbeside\nlast\n").then_some(())
    });
    mesh.lateen(&["exec", "app", "-c", "beside", "--", "true"]).ok();
    let pod = mesh.pods().remove(0);
    let init = pod["status"]["initContainerStatuses"].as_array().unwrap();
    assert_eq!(init[0]["state"]["terminated"]["exitCode"], 0, "{init:?}");
    assert!(init[1]["state"]["running"].is_object(), "{init:?}");
}

#[test]
fn a_pod_that_is_deleted_while_it_starts_leaves_nothing() {
    let mut pods = shell("slow", "sleep 1000");
    let init = json!([{"name": "init", "image": "sh", "args": ["exec sleep 54321"]}]);
    pods["spec"]["template"]["spec"]["initContainers"] = init;
    pods["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let mesh = Mesh::new(&[pods, client()]);
    mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "1"]));
    let is_running = || mesh.family().alive().iter().any(|line| line.contains("sleep 54321"));
    eventually("the init container runs", || is_running().then_some(()));
    mesh.write(&[client()]);
    eventually("it is gone", || (!is_running() && mesh.pods().len() == 1).then_some(()));
    // The client's directory and our own manifest stay.
    let count = || fs::read_dir(mesh.path("state/run")).unwrap().count();
    eventually("its directory is gone", || (count() == 2).then_some(()));
}

#[test]
fn a_container_that_ends_is_started_again_and_again_more_slowly() {
    let mesh = Mesh::new(&[shell("crash", "echo about to fail >&2; exit 3")]);
    let said = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "3"]));
    assert_eq!(said.code, Some(1));
    assert!(
        said.output.contains("container sh: ended with status 3; starting it again in 1 s\n    about to fail"),
        "{}",
        said.output
    );
    assert!(
        said.output.contains("about to fail") && said.output.contains("starting it again in 1 s"),
        "{}",
        said.output
    );
    let pod = eventually("a second restart", || {
        mesh.pods().into_iter().find(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(2))
    });
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3, "{pod}");
    eventually("kubectl's word for it", || mesh.lateen(&["status"]).output.contains("CrashLoopBackOff").then_some(()));
}

#[test]
fn a_container_whose_liveness_fails_is_restarted() {
    let probe =
        json!({"exec": {"command": ["test", "!", "-e", "/state/sick"]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({
        "name": "sh", "image": "sh", "args": ["rm -f /state/sick; sleep 1000"], "livenessProbe": probe,
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    });
    let mut pods = deployment("app", 1, container);
    pods["spec"]["template"]["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    let mesh = Mesh::up(&[pods]);
    mesh.exec("app", "touch /state/sick").ok();
    eventually("it is told", || mesh.log().contains("its liveness probe fails").then_some(()));
    eventually("it runs again", || {
        let pod = mesh.pods().remove(0);
        let status = &pod["status"]["containerStatuses"][0];
        // On a busy machine the probe can come before the file is gone, and once more.
        (status["restartCount"].as_u64() >= Some(1) && status["ready"] == true).then_some(())
    });
    mesh.exec("app", "test ! -e /state/sick").ok();
}

#[test]
fn containers_are_asked_to_end_before_they_are_made_to() {
    let container = json!({
        "name": "sh", "image": "sh",
        "args": ["trap 'echo bye > /state/bye; exit 0' TERM; while :; do sleep 0.01; done"],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /state/stopping"]}}},
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    });
    let mut polite = deployment("polite", 1, container);
    let stubborn = shell("stubborn", "trap '' TERM; while :; do sleep 0.01; done");
    let shared = tempfile::tempdir().unwrap();
    polite["spec"]["template"]["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    let mut stubborn = stubborn;
    stubborn["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let mesh = Mesh::up(&[polite, stubborn, client()]);
    // The volume goes with the pod; a link to its files does not.
    let volume = fs::read_dir(mesh.path("state/run"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("volumes/state"))
        .find(|path| path.exists())
        .unwrap();
    let names = ["bye", "stopping"];
    for name in names {
        let kept = shared.path().join(name);
        fs::write(&kept, "").unwrap();
        if fs::hard_link(&kept, volume.join(name)).is_err() {
            return; // Two file systems: nothing can be kept from one of them.
        }
    }
    mesh.write(&[client()]);
    eventually("both pods are gone", || (mesh.pods().len() == 1).then_some(()));
    for name in names {
        assert_ne!(fs::read_to_string(shared.path().join(name)).unwrap(), "", "{name} was not written");
    }
}

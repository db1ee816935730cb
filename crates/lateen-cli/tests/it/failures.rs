//! What is wrong is said plainly, and before anything is started where that can be known.

use std::fs;

use nix::sched::CloneFlags;
use serde_json::json;

use crate::host::on_a_host_of_its_own;
use crate::mesh::{Mesh, client, deployment, eventually, install, shell, taken_port};

fn refused(mesh: &Mesh, more: &[&str]) -> String {
    let said = mesh.lateen(&mesh.up_arguments(more));
    assert_eq!(said.code, Some(1), "{said:?}");
    // With --detach the one that says so is not the one that ends.
    eventually("nothing is left", || mesh.left_over().is_empty().then_some(()));
    said.errors
}

#[test]
fn a_port_in_use_is_named_with_its_option() {
    let mesh = Mesh::new(&[client()]);
    let (_taken, port) = taken_port();
    let text = refused(&mesh, &["--publish", &format!("{port}:80")]);
    assert!(text.contains(&format!("port {port} of this machine is in use; choose another with --publish")), "{text}");
    let text = refused(&Mesh::new(&[]), &["--detach", "--publish", &format!("{port}:80")]);
    assert!(text.contains(&format!("port {port} of this machine is in use")) || text.is_empty(), "{text}");
    let wrong = mesh.lateen(&mesh.up_arguments(&["--publish", "80:http"]));
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.errors.contains("`http` is not a port"), "{}", wrong.errors);
}

#[test]
fn an_image_without_a_command_is_named_with_its_place_and_the_line_to_write() {
    let mesh = Mesh::new(&[client(), deployment("shop", 1, json!({"name": "c", "image": "example.org/shop:1"}))]);
    let text = refused(&mesh, &[]);
    for part in [
        "manifest.yaml:1: Deployment shop, container `c`",
        "image `example.org/shop:1`",
        "match: \"example.org/shop*\"",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn files_that_are_not_there_or_wrong_are_named() {
    let mesh = Mesh::new(&[client()]);
    let text = refused(&mesh, &["-f", "/nonexistent/file.yaml"]);
    assert!(text.contains("-f /nonexistent/file.yaml: No such file"), "{text}");
    fs::write(mesh.path("images.yaml"), "images:\n- {match: a, comand: [b]}\n").unwrap();
    let text = refused(&mesh, &[]);
    assert!(text.contains("images.yaml") && text.contains("comand"), "{text}");
    fs::remove_file(mesh.path("bin/lateend")).unwrap();
    fs::write(mesh.path("images.yaml"), "images: []\n").unwrap();
    mesh.write(&[]);
    let said = mesh.command(&mesh.up_arguments(&[])).env("PATH", "/bin").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("there is no program lateend beside lateen or on PATH"));
}

#[test]
fn a_control_plane_that_does_not_start_is_shown_with_its_last_words() {
    let mesh = Mesh::new(&[client()]);
    fs::write(mesh.path("script"), "#!/bin/sh\necho no such option: --mesh >&2\nexit 2\n").unwrap();
    install(&mesh.path("script"), &mesh.path("bin/lateend"));
    let text = refused(&mesh, &[]);
    assert!(
        text.contains("the control plane ended with status 2") && text.contains("no such option: --mesh"),
        "{text}"
    );
}

#[test]
fn what_one_machine_cannot_do_is_told_with_the_deployments_place() {
    let mut pods = shell("shop", "sleep 1000");
    pods["spec"]["template"]["spec"]["volumes"] = json!([{"name": "disk", "hostPath": {"path": "/"}}]);
    let mesh = Mesh::new(&[pods, client()]);
    let said = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "2"]));
    assert!(said.output.contains("manifest.yaml:1: pod shop-"), "{}", said.output);
    assert!(said.output.contains("volume disk: `hostPath` is not supported on one machine"), "{}", said.output);
    // The others are not concerned.
    eventually("the other pod runs", || (mesh.exec("client", "true").code == Some(0)).then_some(()));
}

#[test]
fn without_a_mesh_the_other_commands_say_what_to_do() {
    let mesh = Mesh::new(&[]);
    for arguments in [&["exec", "p", "--", "true"][..], &["logs", "p"]] {
        let said = mesh.lateen(arguments);
        assert_eq!(said.code, Some(1));
        assert!(said.errors.contains("no mesh is running in") && said.errors.contains("lateen up"), "{}", said.errors);
    }
}

#[test]
fn where_namespaces_cannot_be_made_the_setting_to_change_is_named() {
    let name = "failures::where_namespaces_cannot_be_made_the_setting_to_change_is_named";
    on_a_host_of_its_own(name, CloneFlags::CLONE_NEWUSER, || {
        // Binds only those in this namespace; the machine's own setting stays.
        fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        let mesh = Mesh::new(&[client()]);
        let lateen = mesh.path("bin/lateen");
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]).arg(lateen);
        command.args(mesh.up_arguments(&[])).env("LATEEN_STATE_DIR", mesh.path("state"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("this user may not make namespaces"), "{text}");
        assert!(text.contains("sudo sysctl -w user.max_user_namespaces=15000"), "{text}");
    });
}

#[test]
fn a_pod_that_cannot_be_made_is_a_problem() {
    let container = json!({
        "name": "sh",
        "image": "sh",
        "args": ["sleep 1000"],
        "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.missing"}}}],
    });
    let mesh = Mesh::new(&[deployment("broken", 1, container)]);
    assert_eq!(mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "1"])).code, Some(1));
    let status = eventually("the reason is shown", || {
        let status = mesh.lateen(&["status"]).ok();
        status.contains("\n1 problem\nerror: pod broken-").then_some(status)
    });
    assert!(
        status.contains(" in default cannot start: ") && status.contains("`spec.missing` is not a field"),
        "{status}"
    );
    let said = mesh.lateen(&["exec", "deploy/broken", "-c", "sh", "--", "true"]);
    assert!(said.errors.contains("the pod has no container yet"), "{said:?}");
    mesh.lateen(&["down"]).ok();
}

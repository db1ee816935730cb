//! `lateen exec` and `lateen logs`.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::json;

use crate::mesh::{Mesh, client, deployment, eventually, shell};

#[test]
fn input_output_and_exit_status_are_the_commands_own() {
    let mesh = Mesh::up(&[client()]);
    let said = mesh.exec("client", "echo out; echo err >&2; exit 7");
    assert_eq!((said.code, said.output.as_str(), said.errors.as_str()), (Some(7), "out\n", "err\n"));
    assert_eq!(mesh.exec("deploy/client", "exit 8").code, Some(8));
    assert_eq!(mesh.exec("client", "kill -TERM $$").code, Some(128 + 15));
    let mut child = mesh
        .command(&["exec", "client", "--", "sh", "-c", "tr a-z A-Z; exit 3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through a pipe\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"THROUGH A PIPE\n".as_slice()));
}

#[test]
fn what_cannot_be_run_is_told() {
    let mesh = Mesh::up(&[client()]);
    let missing = mesh.lateen(&["exec", "client", "--", "no-such-program"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert!(missing.errors.contains("there is no program `no-such-program`"), "{}", missing.errors);
    let pod = mesh.lateen(&["exec", "nobody", "--", "true"]);
    assert_eq!(pod.code, Some(1));
    assert!(pod.errors.contains("there is no pod nobody in namespace default"), "{}", pod.errors);
    let container = mesh.lateen(&["exec", "client", "-c", "x", "--", "true"]);
    assert!(container.errors.contains("has no container x; it has sh"), "{}", container.errors);
    assert_eq!(mesh.lateen(&["exec", "client"]).code, Some(2), "the call is wrong");
}

#[test]
fn a_command_that_is_interrupted_ends_and_so_does_one_whose_caller_is_killed() {
    let mesh = Mesh::up(&[client()]);
    let start = |script: &str| {
        let mut command = mesh.command(&["exec", "client", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        child
    };
    let mut child = start("trap 'echo caught; exit 5' INT; echo go; while :; do sleep 0.01; done");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("caught\n", Some(5)));
    let mut child = start("echo go; exec sleep 98765");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the command is gone", || {
        let said = mesh.exec("client", "cat /proc/[0-9]*/comm | grep -c sleep");
        (said.output.trim() == "1").then_some(())
    });
}

#[test]
fn a_terminal_is_passed_on_with_its_size_and_its_keys() {
    let mesh = Mesh::up(&[client()]);
    let size = nix::pty::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None).unwrap();
    let theirs = || Stdio::from(pair.slave.try_clone().unwrap());
    let script = "stty size; tty >/dev/null && echo terminal; read line; echo \"read $line\"; exit 4";
    let mut command = mesh.command(&["exec", "client", "--", "sh", "-c", script]);
    let mut child = command.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().unwrap();
    drop(command);
    let mut ours = std::fs::File::from(pair.master.try_clone().unwrap());
    assert!(pair.master.as_raw_fd() > 0);
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    let mut typed = false;
    while !seen.contains("read hello") {
        let length = ours.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if seen.contains("terminal") && !typed {
            ours.write_all(b"hello\r").unwrap();
            typed = true;
        }
    }
    assert!(seen.starts_with("33 77\r\n"), "{seen:?}");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn logs_are_shown_whole_from_the_end_and_as_they_come() {
    let mesh =
        Mesh::up(&[shell("talker", "echo one; echo two >&2; echo three; while :; do sleep 0.05; echo tick; done")]);
    eventually("three lines", || {
        mesh.lateen(&["logs", "talker"]).output.starts_with("one\ntwo\nthree\n").then_some(())
    });
    let tail = mesh.lateen(&["logs", "talker", "--tail", "1"]).ok();
    assert_eq!(tail.lines().count(), 1, "{tail}");
    let mut child = mesh.command(&["logs", "-f", "talker"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while seen.matches("tick").count() < 20 {
        let length = child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
        assert!(length > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    mesh.lateen(&["down"]).ok();
    assert!(child.wait().unwrap().success(), "following ends with the mesh");
}

#[test]
fn logs_of_an_earlier_run_of_all_containers_and_of_chosen_pods() {
    let mut crasher = deployment("crasher", 1, json!({"name": "sh", "image": "sh", "args": ["echo run; exit 3"]}));
    let containers = &mut crasher["spec"]["template"]["spec"]["containers"];
    let second = json!({"name": "second", "image": "sh", "args": ["echo beside; sleep 1000"]});
    containers.as_array_mut().unwrap().push(second);
    let mesh = Mesh::new(&[crasher]);
    // It never becomes ready.
    let up = mesh.lateen(&mesh.up_arguments(&["--detach", "--timeout", "1"]));
    assert!(up.errors.contains("not everything is ready after 1 s"), "{up:?}");
    eventually("a second run", || mesh.lateen(&["logs", "crasher", "-p"]).output.starts_with("run\n").then_some(()));
    // Each run has its own log.
    eventually("one run", || (mesh.lateen(&["logs", "crasher"]).output == "run\n").then_some(()));
    let fresh = mesh.lateen(&["logs", "crasher", "-c", "second", "-p"]);
    assert!(fresh.code == Some(1) && fresh.errors.contains("container second of pod crasher-"), "{fresh:?}");
    assert!(fresh.errors.contains("has no earlier run"), "{fresh:?}");
    let all = mesh.lateen(&["logs", "crasher", "--all-containers", "--prefix"]).ok();
    assert!(all.contains("/second] beside\n") && all.lines().all(|line| line.starts_with("[pod/crasher-")), "{all}");
    let chosen =
        mesh.lateen(&["logs", "-l", "app in (crasher)", "-c", "second", "--timestamps", "--since", "10m"]).ok();
    let (time, text) = chosen.split_once(' ').unwrap();
    assert!(text == "beside\n" && time.ends_with('Z') && time.len() == 27, "{chosen}");
    let nobody = mesh.lateen(&["logs", "-l", "app=nobody"]);
    assert!(
        nobody.code == Some(1) && nobody.errors.contains("no pod in namespace default has these labels"),
        "{nobody:?}"
    );
    let wrong = mesh.lateen(&["logs", "crasher", "--since", "soon"]);
    assert!(wrong.code == Some(2) && wrong.errors.contains("such as 30s, 5m or 1h30m"), "{wrong:?}");
}

//! Pods and the world outside the mesh. The "host" is a network namespace of the test's own, with an address that stands
//! for the internet.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use lateen_intercept::link;
use lateen_intercept::spawn::Spawn;
use lateen_intercept::userns::{self, Privilege};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::mesh::{Mesh, client, eventually};

const MARKER: &str = "LATEEN_TEST_INSIDE";

/// Runs the rest of a test in a network namespace of its own.
fn on_a_host_of_its_own(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARKER).is_some() {
        link::set_up("lo").unwrap();
        return body();
    }
    let arguments = ["--exact", "--nocapture", name].map(OsString::from);
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    environment.push((MARKER.into(), "1".into()));
    let flags = Privilege::of_this_process().with(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS);
    let program = std::env::current_exe().unwrap();
    let child = Spawn::new(&program, &arguments, &environment).unwrap().namespaces(flags).start();
    let child = child.unwrap_or_else(|error| panic!("{}", userns::explain(&error)));
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

#[test]
fn tcp_goes_out_through_the_host_and_names_are_the_hosts() {
    on_a_host_of_its_own("outside::tcp_goes_out_through_the_host_and_names_are_the_hosts", || {
        let outside = Ipv4Addr::new(192, 0, 2, 80);
        link::add_address("lo", outside.into()).unwrap();
        let listener = TcpListener::bind((outside, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut word = [0; 4];
                stream.read_exact(&mut word).unwrap();
                let from = stream.peer_addr().unwrap().ip();
                write!(stream, "{} heard from {from}", String::from_utf8_lossy(&word)).unwrap();
            }
        });
        let mesh = Mesh::up(&[client()]);
        let script = format!(
            "python3 -c 'import socket; s = socket.create_connection((\"{outside}\", {port}), 5); \
             s.sendall(b\"ping\"); print(s.makefile().read())'"
        );
        // The connection comes from the host itself.
        assert_eq!(mesh.exec("client", &script).ok().trim(), format!("ping heard from {outside}"));
        let closed = script.replace(&port.to_string(), "1");
        let said = mesh.exec("client", &closed);
        assert!(said.errors.contains("Connection reset") || said.errors.contains("Connection refused"), "{said:?}");
        // The only name that every host knows.
        let script = "python3 -c 'import socket; print(socket.gethostbyname(\"localhost.\"))'";
        eventually("a name of the host", || (mesh.exec("client", script).output.trim() == "127.0.0.1").then_some(()));
        let unknown = mesh.exec("client", "python3 -c 'import socket; socket.gethostbyname(\"nobody.invalid\")'");
        assert!(unknown.errors.contains("gaierror"), "{unknown:?}");
    });
}

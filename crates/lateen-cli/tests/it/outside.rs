//! Pods and the world outside the mesh. The "host" is a network namespace of the test's own, with an address that stands
//! for the internet.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use lateen_intercept::link;
use nix::sched::CloneFlags;

use crate::host::on_a_host_of_its_own;
use crate::mesh::{Mesh, client, eventually};

#[test]
fn tcp_goes_out_through_the_host_and_names_are_the_hosts() {
    on_a_host_of_its_own("outside::tcp_goes_out_through_the_host_and_names_are_the_hosts", CloneFlags::empty(), || {
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

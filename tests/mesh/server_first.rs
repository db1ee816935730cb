//! Protocols in which the server speaks first, as MySQL's, on ports of which nothing says what is spoken there. Proxies wait
//! for the client's first bytes to find out, in vain; they must not do so for long, and not each time.

use crate::running::Mesh;

pub(crate) fn a_greeting_comes_through(mesh: &Mesh) {
    let address = mesh.address_of("outside-greeter");
    greeted(mesh, "by a service of the mesh", "greeter:3307");
    // Nobody has ever heard of it.
    greeted(mesh, "by an unknown address", &format!("{address}:3307"));
    mesh.apply_text(&format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: database}}
spec:
  hosts: [database.example]
  addresses: [240.0.0.33]
  ports: [{{number: 3307, name: unnamed, protocol: ''}}]
  resolution: STATIC
  endpoints: [{{address: {address}}}]
"
    ));
    greeted(mesh, "by a ServiceEntry", "240.0.0.33:3307");
    mesh.delete("serviceentry", "database");
}

/// The first connection may take a second, later ones 50 ms; a busy machine makes that more. What it does not do is make
/// every one of many later ones half as slow as one that waits in vain, for half a second.
fn greeted(mesh: &Mesh, place: &str, to: &str) {
    let said = mesh.probe("deploy/client", &["greetings", to, "12"]);
    let lines: Vec<(u64, &str)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(took, text)| (took.parse().expect("a number"), text))
        .collect();
    assert!(lines.len() == 12 && lines.iter().all(|(_, text)| *text == "5.7.0-sample ready"), "{said}");
    let (first, later): (u64, Vec<u64>) = (lines[0].0, lines[1..].iter().map(|(took, _)| *took).collect());
    eprintln!("greeted {place}: first after {first} ms, then {later:?}");
    let quickest = later.iter().min().expect("there are later ones");
    assert!(first < 5000 && *quickest < 250, "{place}: first after {first} ms, later ones after {later:?}");
}

//! Bookinfo by the Kubernetes Gateway API: a Gateway and routes at the edge, and a route for a Service of the mesh.

use crate::running::Mesh;

const SAMPLE: &str = "samples/bookinfo/gateway-api.yaml";

#[test]
fn bookinfo_is_routed_by_the_gateway_api() {
    let mut arguments = Vec::new();
    for file in ["samples/bookinfo/bookinfo.yaml", SAMPLE] {
        arguments.extend(["-f".to_owned(), file.to_owned()]);
    }
    arguments.extend(["--images".to_owned(), "samples/bookinfo/images.yaml".to_owned()]);
    let (mesh, _) = Mesh::start(&[], &arguments);
    at_the_edge(&mesh);
    in_the_mesh(&mesh);
    backends_that_are_not_there(&mesh);
    explained(&mesh);
}

fn at_the_edge(mesh: &Mesh) {
    let page = mesh.get("/productpage");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let front = mesh.get("/");
    assert!(front.starts_with("HTTP/1.1 302"), "{front}");
    assert!(front.to_lowercase().contains("/productpage\r\n"), "{front}");
    assert!(mesh.get("/static/style.css").starts_with("HTTP/1.1 200"));
    // No rule is for it: a prefix is one of whole segments.
    for path in ["/nowhere", "/staticfoo"] {
        let answer = mesh.get(path);
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

/// All reviews are of v3, whose stars are red.
fn in_the_mesh(mesh: &Mesh) {
    for _ in 0..10 {
        let answer = mesh.ask("deploy/productpage-v1", "reviews", 9080, "/reviews/0");
        assert!(answer.contains("reviews-v3"), "{answer}");
    }
}

fn backends_that_are_not_there(mesh: &Mesh) {
    mesh.apply_text(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost}
spec:
  parentRefs: [{name: bookinfo, namespace: istio-system}]
  rules:
  - matches: [{path: {value: /lost}}]
    backendRefs: [{name: absent, port: 80}]
",
    );
    let lost = mesh.get("/lost");
    assert!(lost.starts_with("HTTP/1.1 500"), "{lost}");
    assert!(mesh.get("/productpage").starts_with("HTTP/1.1 200"));
}

/// The journey names the route that somebody wrote, not what was made of it.
fn explained(mesh: &Mesh) {
    let journey =
        mesh.run(&["explain", "--from", "productpage-v1", "--to", "http://reviews:9080/reviews/1", "-o", "json"]);
    assert!(journey.contains("\"HTTPRoute\"") && !journey.contains("\"VirtualService\""), "{journey}");
}

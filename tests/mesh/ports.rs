//! Who can reach what: from another pod, admin and debug pages are shut, and metrics are open, as docs/security.md says.

use crate::running::Mesh;
use crate::secrets::Secrets;

/// The control plane, for pods.
const CONTROL_PLANE: &str = "lateend.istio-system.svc";
/// Everything that an admin port shows.
const PAGES: [&str; 8] =
    ["/config_dump?include_eds", "/certs", "/clusters", "/listeners", "/stats", "/server_info", "/ready", "/"];

pub(crate) fn what_is_not_for_others_is_shut(mesh: &Mesh) {
    let ask = |host: &str, port, path| mesh.ask("deploy/outsider", host, port, path);
    // The control plane: discovery without TLS and the console are on loopback alone, debug pages for callers there.
    for port in [15010, 15080, 15017, 8080, 9876] {
        assert_eq!(ask(CONTROL_PLANE, port, "/"), "", "{port} of the control plane");
    }
    let plain = ask(CONTROL_PLANE, 15012, "/");
    assert!(!plain.contains("HTTP/"), "nobody speaks without TLS there: {plain}");
    let metrics = ask(CONTROL_PLANE, 15014, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("pilot_xds{"), "{metrics}");
    assert!(ask(CONTROL_PLANE, 15014, "/ready").starts_with("HTTP/1.1 200"));
    let debug = ask(CONTROL_PLANE, 15014, "/debug/syncz");
    assert!(debug.starts_with("HTTP/1.1 403") && !debug.contains("httpbin"), "{debug}");
    assert!(ask(CONTROL_PLANE, 15014, "/api/v1/objects?kind=Pod").starts_with("HTTP/1.1 404"));
    // A proxy: its admin port is on loopback alone; health and metrics are for whoever scrapes.
    let pod = mesh.address_of("httpbin");
    // To its port, the sidecar itself lets traffic pass, as to any that no service has; there is nobody at the pod's address.
    let admin = ask(&pod, 15000, "/config_dump");
    assert!(admin.is_empty() || admin.starts_with("HTTP/1.1 503"), "the admin port: {admin}");
    for port in [15020, 15090, 15021] {
        assert!(ask(&pod, port, "/healthz/ready").starts_with("HTTP/1.1 200"), "{port}");
        assert!(ask(&pod, port, "/stats/prometheus").contains("envoy_cluster_"), "{port}");
        for path in ["/config_dump", "/certs", "/quitquitquit", "/debug/pprof/profile", "/drain_listeners"] {
            assert!(ask(&pod, port, path).starts_with("HTTP/1.1 404"), "{path} at {port}");
        }
        let quit = format!(
            "printf 'POST /quitquitquit HTTP/1.1\\r\\nhost: {pod}\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        assert!(mesh.converse("deploy/outsider", &pod, port, &quit).starts_with("HTTP/1.1 404"), "{port}");
    }
}

/// What those who may look see of keys and tokens: nothing.
pub(crate) fn no_page_shows_a_secret(mesh: &Mesh) {
    let secrets = Secrets::of(&mesh.state());
    assert!(secrets.len() > 4, "the keys of the control plane are known");
    for path in PAGES {
        let page = mesh.ask("deploy/client", "127.0.0.1", 15000, path);
        assert!(page.starts_with("HTTP/1.1 200"), "{path}: {page}");
        assert_eq!(secrets.found_in(&page), None, "{path} of a sidecar's admin port");
    }
}
